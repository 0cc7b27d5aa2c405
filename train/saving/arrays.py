"""Named arrays into a folder and back, through Orbax.

The layout is plain zarr: a file of raw numbers per array and device. One host writes it at least twice as fast as
Orbax's default (OCDBT, compressed), and weights hardly compress. Every process of the job must call these at the same
time.
"""

import functools
import logging
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
  logging.getLogger('absl').addFilter(_wanted)
  # Named processes make Orbax meet at the coordinator; by default it meets through the devices, where a save in the
  # background would get between the collectives of the training step.
  processes = set(range(jax.process_count())) if jax.process_count() > 1 else None
  together = ocp.options.MultiprocessingOptions(active_processes=processes, barrier_sync_key_prefix='checkpoint')
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_compression=False, multiprocessing_options=together)
  return ocp.Checkpointer(handler, multiprocessing_options=together)


def _wanted(record: logging.LogRecord) -> bool:
  """Leaves out Orbax's chatter, and what it warns of at each save without OCDBT."""
  chatter = record.levelno < logging.WARNING or 'Skipping merge of OCDBT' in str(record.msg)
  return not (chatter and 'orbax' in record.pathname)
