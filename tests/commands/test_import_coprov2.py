"""`pairs import-coprov2` from the words typed to the folder it makes."""

import json

import pytest
from PIL import Image

from training.__main__ import main
from training.pairs import load_pairs


@pytest.fixture
def data(tmp_path):
    """A CSV of two pairs in two categories, its images elsewhere, a test CSV, and an image folder."""
    lines, hub = ["prompt,image,category"], ["file_name,jpg_0,jpg_1,label_0,caption"]
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for number, category in enumerate(("Hate", "self-harm")):
        files = [f"{side}_idx_{number:07d}_0.jpg" for side in "us"]
        for tone, (file, word) in enumerate(zip(files, ("skull", "flower"), strict=True)):
            lines.append(f'"a {word}, {number}",{file},{category}')
            hub.append(f"{file},{files[1]},{files[0]},1,a {word} {number}")
            picture = Image.new("RGB", (8, 8), (number, tone, 0))
            picture.save(tmp_path / "pictures" / "deep" / file, format="PNG")
    (tmp_path / "train.csv").write_text("\n".join(lines))
    (tmp_path / "test.csv").write_text('prompt,image,category\n"a skull, 1",0000000_0.jpg,self-harm\n')
    (tmp_path / "pictures" / "metadata.csv").write_text("\n".join(hub))
    return tmp_path


@pytest.fixture
def run(capsys):
    """Return a function that runs an import and returns its exit code, its JSON answer and its last words."""

    def run(*words):
        code = main(["pairs", "import-coprov2", *map(str, words), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err.splitlines()[-1]

    return run


def test_the_csv_becomes_a_folder_that_loads(data, run):
    words = [data / "train.csv", "--images", data / "pictures", "--out", data / "out"]
    code, answer, _ = run(*words)
    assert (code, answer["kept"], answer["found"]["pair ids"]) == (0, 2, 2)
    assert answer["categories"] == {"hate": 1, "self-harm": 1}
    pairs = load_pairs(data / "out")
    assert [pair.unsafe_prompt for pair in pairs.pairs] == ["a skull, 0", "a skull, 1"]
    assert pairs.report.kept == 2


def test_test_prompts_and_other_categories_stay_out(data, run):
    words = [data / "train.csv", "--images", data / "pictures"]
    _, answer, _ = run(*words, "--out", data / "clear", "--test-csv", data / "test.csv")
    assert answer["dropped"] == {"the unsafe prompt is also a test prompt": ["0000001"]}
    _, answer, _ = run(*words, "--out", data / "one", "--category", "Self_Harm")
    assert (answer["kept"], answer["other_categories"]) == (1, 1)


def test_the_image_folder_needs_a_category_and_becomes_a_folder(data, run):
    code, _, said = run(data / "pictures", "--out", data / "out")
    assert code == 2
    assert "Choose the category" in said
    code, answer, _ = run(data / "pictures", "--out", data / "out", "--category", "violence")
    assert (code, answer["kept"], answer["categories"]) == (0, 2, {"violence": 2})
    assert load_pairs(data / "out").report.kept == 2


def test_what_does_not_fit_is_refused(data, run):
    (data / "taken").mkdir()
    words = [data / "train.csv", "--images", data / "pictures"]
    assert "taken already exists" in run(*words, "--out", data / "taken")[2]
    assert "go with a CSV" in run(data / "pictures", "--images", data, "--out", data / "out")[2]
    assert "there is no folder of images" in run(words[0], "--images", data / "gone", "--out", data / "o")[2]
    code, _, said = run(data / "test.csv", "--images", data / "pictures", "--out", data / "out")
    assert code == 2
    assert "no row of test.csv can be used" in said
    assert not (data / "out").exists()
