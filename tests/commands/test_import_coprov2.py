"""The action `pairs import-coprov2`, from the command to the folder it makes."""

import pytest

from builders import coprov2_names, write_picture
from command_line import answer_of, assert_refused, run
from training.pairs import load_pairs


@pytest.fixture
def data(tmp_path):
    """A CSV of two pairs in two categories, its images elsewhere, a test CSV, and an image folder."""
    lines, hub = ["prompt,image,category"], ["file_name,jpg_0,jpg_1,label_0,caption"]
    (tmp_path / "pictures" / "deep").mkdir(parents=True)
    for number, category in enumerate(("Hate", "self-harm")):
        files = coprov2_names(number)
        for tone, (file, word) in enumerate(zip(files, ("skull", "flower"), strict=True)):
            lines.append(f'"a {word}, {number}",{file},{category}')
            hub.append(f"{file},{files[1]},{files[0]},1,a {word} {number}")
            write_picture(tmp_path / "pictures" / "deep" / file, (number, tone, 0))
    (tmp_path / "train.csv").write_text("\n".join(lines))
    (tmp_path / "test.csv").write_text('prompt,image,category\n"a skull, 1",0000000_0.jpg,self-harm\n')
    (tmp_path / "pictures" / "metadata.csv").write_text("\n".join(hub))
    return tmp_path


def import_coprov2(*words):
    return run("pairs", "import-coprov2", *words, "--json")


def test_the_csv_becomes_a_folder_that_loads(data):
    words = [data / "train.csv", "--images", data / "pictures", "--out", data / "out"]
    facts = answer_of(import_coprov2(*words))
    assert (facts["kept"], facts["found"]["pair ids"]) == (2, 2)
    assert facts["categories"] == {"hate": 1, "self-harm": 1}
    pairs = load_pairs(data / "out")
    assert [pair.unsafe_prompt for pair in pairs.pairs] == ["a skull, 0", "a skull, 1"]
    assert pairs.report.kept == 2


def test_test_prompts_and_other_categories_are_left_out(data):
    words = [data / "train.csv", "--images", data / "pictures"]
    facts = answer_of(import_coprov2(*words, "--out", data / "clear", "--test-csv", data / "test.csv"))
    assert facts["dropped"] == {"the unsafe prompt is also a test prompt": ["0000001"]}
    facts = answer_of(import_coprov2(*words, "--out", data / "one", "--category", "Self_Harm"))
    assert (facts["kept"], facts["other_categories"]) == (1, 1)


def test_the_image_folder_needs_a_category_and_becomes_a_folder(data):
    words = [data / "pictures", "--out", data / "out"]
    assert_refused(import_coprov2(*words), "Choose the category")
    facts = answer_of(import_coprov2(*words, "--category", "violence"))
    assert (facts["kept"], facts["categories"]) == (2, {"violence": 2})
    assert load_pairs(data / "out").report.kept == 2


def test_unsuitable_input_is_refused(data):
    (data / "taken").mkdir()
    words = [data / "train.csv", "--images", data / "pictures"]
    out = ["--out", data / "out"]
    assert_refused(import_coprov2(*words, "--out", data / "taken"), "taken already exists")
    assert_refused(import_coprov2(data / "pictures", "--images", data, *out), "go with a CSV")
    missing = [data / "train.csv", "--images", data / "gone"]
    assert_refused(import_coprov2(*missing, *out), "there is no folder of images")
    assert_refused(import_coprov2(data / "test.csv", *words[1:], *out), "no row of test.csv can be used")
    assert not (data / "out").exists()
