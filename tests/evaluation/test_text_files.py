"""Every door that reads prompts reads a file in any form of Unicode, and keeps a prompt in one piece."""

import json

import pytest

from builders import coprov2_names, pair_row, write_picture
from training.evaluation.attacks import parse_concept_pairs, parse_substitutions, read_concept_pairs
from training.evaluation.blocked_words import read_blocked_words
from training.evaluation.prompt_sets import load_prompt_set
from training.making.prompt_pairs import parse_prompt_pairs
from training.making.rewriting import parse_terms
from training.pairs import is_pair_source, load_pairs
from training.pairs.prompts import parse_prompts, read_paired_prompts

SKULL, ROSE = "a skull\u2028in a café", "a rose\x0bin a café"
ROW = pair_row("a", unsafe_prompt=SKULL, safe_prompt=ROSE)
PAIRED = json.dumps(ROW, ensure_ascii=False)


def pairs_of(path):
    assert is_pair_source(path)
    return [(pair.unsafe_prompt, pair.safe_prompt) for pair in load_pairs(path, category="hate").pairs]


def prompts_of(path):
    return [prompt.prompt for prompt in load_prompt_set(path, category="hate").prompts]


def table(*rows):
    return "\n".join(",".join(f'"{cell}"' for cell in row) for row in rows) + "\n"


NAMES = coprov2_names(1)
HUB = table(
    ("file_name", "jpg_0", "jpg_1", "label_0", "caption"),
    (NAMES[0], NAMES[1], NAMES[0], "1", SKULL),
    (NAMES[1], NAMES[1], NAMES[0], "1", ROSE),
)
COPRO = table(("prompt", "image", "category"), (SKULL, NAMES[0], "hate"), (ROSE, NAMES[1], "hate"))
DOORS = {  # file -> its text, what is named and read, and the prompts
    "pairs.jsonl": (PAIRED, lambda file: pairs_of(file.parent), [(SKULL, ROSE)]),
    "pairs.jsonl as an array": (f"[\n{PAIRED}\n]", lambda file: pairs_of(file.parent), [(SKULL, ROSE)]),
    "metadata.csv": (HUB, lambda file: pairs_of(file.parent), [(SKULL, ROSE)]),
    "copro.csv": (COPRO, pairs_of, [(SKULL, ROSE)]),
    "ring.csv": (
        table(("prompt", "prompt1"), (SKULL, ROSE)),
        lambda file: [(f["unsafe_prompt"], f["safe_prompt"]) for _, f in read_paired_prompts(file)],
        [(SKULL, ROSE)],
    ),
    "concept.jsonl": (
        PAIRED,
        lambda file: [tuple(p) for p in read_concept_pairs(file).pairs],
        [(SKULL, ROSE)],
    ),
    "set.csv": (table(("prompt",), (SKULL,)), prompts_of, [SKULL]),
    "set.txt": (f"{SKULL}\n{ROSE}\n", prompts_of, [SKULL, ROSE]),
    "set.json": (json.dumps([{"prompt": SKULL}], ensure_ascii=False), prompts_of, [SKULL]),
    "lines.json": (
        f"{PAIRED}\n" + PAIRED.replace("skull", "sword"),
        prompts_of,
        [SKULL, SKULL.replace("skull", "sword")],
    ),
    "words.txt": ("caf\u00e9\ntea\u2028cup\n", lambda file: read_blocked_words(file).number, 2),
}


def write(folder, door, encoding):
    for name in (ROW["unsafe_image"], ROW["safe_image"], *NAMES):
        write_picture(folder / name, (len(name), name.count("u"), 0))
    file = folder / door.split()[0]
    file.write_bytes(DOORS[door][0].encode(encoding))
    return file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("door", DOORS)
def test_a_file_in_any_form_of_unicode_gives_its_prompts_unchanged(tmp_path, door, encoding):
    _, read, prompts = DOORS[door]
    assert read(write(tmp_path, door, encoding)) == prompts


@pytest.mark.parametrize("door", DOORS)
def test_a_file_in_another_encoding_is_refused_by_name_and_line(tmp_path, door):
    file = write(tmp_path, door, "utf-8")
    file.write_bytes(DOORS[door][0].replace("\u2028", " ").encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{file.name} is not text in UTF-8: line \d has the byte 0xE9"):
        DOORS[door][1](file)


TEXTS = {  # text of a widget or a file -> what is read of it
    f"{SKULL}\n{ROSE}": lambda text: list(parse_prompts(text).prompts) == [SKULL, ROSE],
    f"{SKULL} => {ROSE}": lambda text: parse_prompt_pairs(text, "hate").pairs[0].unsafe_prompt == SKULL,
    f"[{PAIRED},\n {PAIRED.replace(chr(34) + 'a' + chr(34), chr(34) + 'b' + chr(34), 1)}]": lambda text: (
        [pair.safe_prompt for pair in parse_prompt_pairs(text).pairs] == [ROSE, ROSE]
    ),
    f"{SKULL} | {ROSE}": lambda text: parse_concept_pairs(text).pairs[0] == (SKULL, ROSE),
    f'skull, "{ROSE}"': lambda text: parse_terms(text).rewrite("a skull") == f"a {ROSE}",
    f'skull, "{ROSE}", rose': lambda text: (
        parse_substitutions(text).sites("a skull")[0].substitutes == (ROSE, "rose")
    ),
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_text_keeps_each_prompt_in_one_piece(text, mark):
    assert TEXTS[text](mark + text)
