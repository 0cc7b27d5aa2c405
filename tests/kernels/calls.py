"""How often a compiled program runs a part of it."""

import jax


def counted(monkeypatch, module, name: str) -> list[int]:
  """A list that gets one more entry each time that the module's function of this name runs on the device."""
  runs: list[int] = []
  function = getattr(module, name)

  def told(*arguments):
    jax.debug.callback(lambda: runs.append(1))
    return function(*arguments)

  monkeypatch.setattr(module, name, told)
  return runs
