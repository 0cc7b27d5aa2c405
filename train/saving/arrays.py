"""Named arrays into a folder and back, through Orbax.

The layout is plain zarr: a file of raw numbers per array and device. One host writes it at least twice as fast as
Orbax's default (OCDBT, compressed), and weights hardly compress. Every process of the job must call these at the same
time.
"""

import functools
import logging
import traceback
from collections.abc import Mapping
from pathlib import Path

import jax
import orbax.checkpoint as ocp


def write(folder: Path, arrays: Mapping[str, jax.Array]) -> None:
  """Writes the arrays into a new folder, which appears when all of it is there; returns when it is."""
  _orbax().save(folder, args=ocp.args.PyTreeSave(dict(arrays)))


def read(folder: Path, like: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
  """The arrays that `like` names (there may be more in the folder), each with the sharding that is asked for."""
  arguments = {name: ocp.ArrayRestoreArgs(sharding=leaf.sharding, global_shape=leaf.shape, dtype=leaf.dtype)
               for name, leaf in like.items()}
  return _orbax().restore(folder, args=ocp.args.PyTreeRestore(item=dict(like), restore_args=arguments,
                                                              partial_restore=True))


@functools.cache
def _orbax() -> ocp.Checkpointer:
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(_wanted)
  # Named processes make Orbax meet at the coordinator; by default it meets through the devices, where a save in the
  # background would get between the collectives of the training step.
  processes = set(range(jax.process_count())) if jax.process_count() > 1 else None
  together = ocp.options.MultiprocessingOptions(active_processes=processes, barrier_sync_key_prefix='checkpoint')
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_compression=False, multiprocessing_options=together)
  return ocp.Checkpointer(handler, multiprocessing_options=together)


def _wanted(record: logging.LogRecord) -> bool:
  """Leaves out what Orbax says beside what it raises: chatter, and stack traces of what is told in one line here."""
  frames = traceback.walk_tb(record.exc_info[2]) if record.exc_info else ()
  return not any('orbax' in path for path in (record.pathname, *(frame.f_code.co_filename for frame, _ in frames)))
