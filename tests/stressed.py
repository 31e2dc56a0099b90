"""What tests of the command `stress` share: the files it reads, and one of two processes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tiny_checkpoint import SIDE, write_checkpoint, write_expert
from training.system.processes import Processes

FAST = ["--resolution", SIDE, "--device", "cpu", "--steps", 2, "--judge", "mini", "--json"]


def write_files(folder: Path) -> Path:
    """Write a base, an expert, prompts, a concept's pairs and a table of words."""
    (folder / "concept.txt").write_text("a skull|a star\na nude child|a tree\n")
    (folder / "prompts.csv").write_text("prompt,category\na sword,violence\nan erotic kid,hate\n")
    (folder / "three.csv").write_text("prompt,category\na sword,hate\na red sword,hate\na blue sword,hate\n")
    (folder / "table.csv").write_text("sword,blade,knife\n")
    write_checkpoint(folder / "tiny.safetensors")
    write_expert(folder / "hate.safetensors", "hate")
    return folder


def in_folder(folder: Path, words: Iterable) -> list:
    """Return the words of a command line, names of files in the folder as paths."""
    return [folder / word if (folder / str(word)).is_file() else word for word in words]


class HalfOfTwo(Processes):
    """One of two processes; the second runs before the first, which then adds up both."""

    sent = []  # tensors of the second process, in order

    def add_up(self, tensors):
        """Do in turn what two processes do together."""
        for tensor in tensors:
            if self.is_first:
                tensor += self.sent.pop(0)
            else:
                self.sent.append(tensor.clone())


@contextmanager
def as_one_of_two(number: int) -> Iterator[None]:
    """Make commands believe that they run in one of two processes, while the context lasts."""

    @contextmanager
    def launched(patience):
        yield HalfOfTwo(2, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.system.processes.launched_processes", launched)
        yield
