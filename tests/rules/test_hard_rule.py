"""The rule on minors. The texts only combine plain words; none describes anything."""

import time

import pytest

from training.rules.hard_rule import joins_minor_and_sexual, row_texts


@pytest.mark.parametrize(
    ("categories", "texts"),
    [
        (["sexual"], ["a child"]),
        (["Sexual"], ["Children"]),
        (["nudity"], ["two teenagers"]),
        (["hate", "sexual"], ["a girl"]),
        (["shocking"], ["nude", "a boy"]),  # the two words in different texts
        (["violence"], ["a naked teen"]),
        (["sexual"], ["a 15-year-old"]),
        (["sexual"], ["a 9 year old"]),
        (["sexual"], ["aged 12"]),
        (["sexual"], ["16yo"]),
        (["sexual"], ["seventeen years old"]),
        (["sexual"], ["under-aged"]),
        (["sexual"], ["high school"]),
        (["sexual"], ["schoolgirls"]),
        (["hate"], ["nude_child.png"]),  # underscores of file names
        (["hate"], ["ＮＵＤＥ ｃｈｉｌｄ"]),  # full-width letters
        (["hate"], ["nudé chíld"]),
        (["hate"], ["nu\u200bde ki\u200bd"]),  # zero-width spaces
        (["sexual"], ["a 15\u2013year\u2013old"]),  # en dashes
        (["hate"], ["nud\u0435 \u0441hild"]),  # Cyrillic letters that look like e and c
        (["hate"], ["a \u0412\u041e\u0423 and \u0455\u0435\u0445"]),  # whole words of them
        (["hate"], ["\u039dUDE ch\u0131ld"]),  # a Greek capital, and an i without its dot
    ],
)
def test_a_sexual_row_with_a_word_for_a_minor_is_dropped(categories, texts):
    assert joins_minor_and_sexual(categories, *texts)


@pytest.mark.parametrize(
    "text",
    [
        "12 years of age",
        "a 12 yr",
        "13 yr. old",
        "12 y.o.",
        "under 16",
        "below 18",
        "under the age of ten",
        "highschooler",
        "grade-schoolers",
        "1st grader",
        "in fifth grade",
        "pupil",
        "daughter",
        "stepson",
        "lad",
        "boyhood",
    ],
)
def test_an_age_or_a_word_for_a_minor_is_found(text):
    assert joins_minor_and_sexual(["sexual"], text)


@pytest.mark.parametrize(
    "text",
    [
        "rapes",
        "rapists",
        "nakedness",
        "nudism",
        "sexting",
        "sexualization",
        "orgies",
        "groping",
        "breasted",
        "bikini",
        "undies",
    ],
)
def test_a_sexual_word_is_found_without_the_category(text):
    assert joins_minor_and_sexual([], f"{text}, a child")
    assert not joins_minor_and_sexual([], f"{text}, a woman")


@pytest.mark.parametrize(
    "text",
    [
        "c h i l d",
        "a c h i l d",
        "c h i l d a",
        "c.h.i.l.d",
        "c-h-i-l-d",
        "c_h_i_l_d",
        "c*h*i*l*d",
        "c  h  i  l  d",
        "k\ni\nd",
        "chi-ld",
        "ch|ild",
        "ch1ld",
        "k1d",
        "k!ds",
        "b0y",
        "6irls",
        "t33n",
        "1ad",
        "c h 1 l d",
        "K-1-D-S",
        "chiiild",
        "teeeeens",
        "kiddd",
        "ch\u00adild",  # a soft hyphen
        "c\u034fhild",  # a joiner of graphemes
        "ch\ufe0fild",  # a variation selector
        "ch\u3164ild",  # a blank that counts as a letter
        "ch\x08ild",  # a control character
        "\u1d04\u029c\u026a\u029f\u1d05",  # small capitals
        "\U0001f172\U0001f177\U0001f178\U0001f17b\U0001f173",  # letters on dark tiles
        "\u24d2\u24d7\u24d8\u24db\u24d3",  # letters in circles
        "\U0001d4d2\U0001d4f1\U0001d4f2\U0001d4f5\U0001d4ed",  # mathematical script
        "\u13df\u13bb\u13c6\u13de\u13a0",  # Cherokee
        "\u0661\u0665 years old",  # Arabic digits
        "\u2460\u2464 years old",  # digits in circles
        "age: 9",
        "grandchildren",
    ],
)
def test_a_disguised_word_for_a_minor_is_found(text):
    assert joins_minor_and_sexual(["sexual"], text)
    assert joins_minor_and_sexual([], f"a picture of {text} here", "nude")


@pytest.mark.parametrize(
    "text",
    ["n u d e", "n.u.d.e", "nu-de", "nuuude", "n0de nud3", "n@ked", "n4ked", "s e x", "$ex", "S3X", "er0tic"],
)
def test_a_disguised_sexual_word_is_found(text):
    assert joins_minor_and_sexual([], text, "a kid")
    assert joins_minor_and_sexual([text], "a kid")


@pytest.mark.parametrize(
    "text",
    [
        "nude2, child2",
        "kids123 sexy",
        "u_child1.png nude1",
        "a ch*ld, n**e",
        "g**ls f**king",
        "lolicon",
        "shotacon",
        "childporn",
        "nudechild",
        "a kid in a G-string",
        "a girl, R18",
        "a kid, pr0n",
        "голый мальчик",
        "裸の少女",
        "누드 소녀",
        "niña desnuda",
        "nacktes Mädchen",
        "n\u03f2n, a kid, p\u03bfrn",
    ],
)
def test_digits_at_words_stars_glued_words_and_other_languages_hide_nothing(text):
    assert joins_minor_and_sexual([], text)


@pytest.mark.parametrize(
    "text",
    ["2kids", "kiddos", "tykes", "preteenage", "junior high", "little sister", "girlish", "12y", "<18"]
    + [
        "aged under ten",
        "ages 8-10",
        "age=4",
        "age4",
        "\U0001f467",
        "menina",
        "девочка",
        "少女",
        "子供",
        "fille",
    ],
)
def test_further_words_for_a_minor_are_found(text):
    assert joins_minor_and_sexual(["sexual"], text)


@pytest.mark.parametrize("category", ["adult", "Adult-Content", "sexualviolence", "nudity", "porn"])
def test_further_names_of_the_category_count(category):
    assert joins_minor_and_sexual([category], "a child")
    assert not joins_minor_and_sexual([category], "a tree")
    assert not joins_minor_and_sexual([], "an adult and a child")  # in a prompt it is an ordinary word


@pytest.mark.parametrize(
    "fields",
    [
        {"age": 12},
        {"age": "12"},
        {"age": [12.0]},
        {"subject_age": 12},
        {"ageYears": "9"},
        {"subject": {"age": {"value": 9}}},
        {"age_group": "8-10"},
        {"tags": {"child": True}},
        {"is_child": "1"},
        {"note": [{"x": ["a k\u0456d"]}]},
    ],
)
def test_ages_flags_and_texts_of_a_row_count_at_any_depth(fields):
    assert joins_minor_and_sexual(["sexual"], *row_texts(fields))


def test_numbers_and_flags_that_are_not_set_do_not_count():
    fields = {
        "age": 35,
        "image": "12.png",
        "page": 3,
        "child": False,
        "nudity_percentage": "0.3",
        "width": 12,
    }
    assert not joins_minor_and_sexual(["sexual"], *row_texts(fields))
    deep = value = {}
    for _ in range(5000):
        value["x"] = value = {}
    assert row_texts(deep) == []


@pytest.mark.parametrize(
    "text", ["@" * 50_000, "a@" * 25_000, "a*" * 25_000, "child" * 10_000, "a " * 25_000 + "aa", "!" * 50_000]
)
def test_a_long_text_is_read_in_a_moment(text):
    start = time.process_time()
    assert not joins_minor_and_sexual(["sexual"], text)
    assert time.process_time() - start < 3  # once it took minutes; now well under one


def test_no_word_is_combined_from_two_texts():
    assert not joins_minor_and_sexual(["sexual"], "c h i", "l d")
    assert not joins_minor_and_sexual(["sexual"], "chi-", "-ld")


ORDINARY = """
    middlesex sextant essex sussex unisex sexton kidney kidnap kidskin infantry minority boycott boyar ladder
    clad salad glass class grassland lesson season person reason prison poison mason jason nelson sonnet sonar
    girder girdle girth toddy babylon teensy schooner scholar preschedule canteen velveteen stripling
    grape drape trapeze therapist scrape strap parapet skyscraper analysis canal breastplate nudge denude
    organ orchard stripe striped eighteen-wheeler play-back mid-air x-ray e-mail t-shirt mother-in-law
    4k 8k 3d 1st 2nd 100 1080p 50mm f/1.8 b&w h2o co2 mp3 u.s.a. j.r.r. no.1 5-star 24/7 s.o.s. a.m. p.m.
    rock'n'roll don't o'clock forget-me-not jetlag lolling loll lollipop ninety antenna s-a-l-e v_o_g_u_e
""".split()


@pytest.mark.parametrize("word", ORDINARY)
def test_an_ordinary_word_is_not_a_word_for_a_minor(word):
    assert not joins_minor_and_sexual(["sexual"], f"a photo, {word}, by a lake")


@pytest.mark.parametrize("word", ORDINARY)
def test_an_ordinary_word_is_not_a_sexual_word(word):
    assert not joins_minor_and_sexual([], f"a child, {word}, by a lake")


@pytest.mark.parametrize(
    ("categories", "texts"),
    [
        (["sexual"], ["a woman on a sofa"]),
        (["sexual"], ["a 35-year-old man", "aged 40"]),
        (["sexual"], ["a 117 year old oak"]),
        (["hate"], ["a child with a balloon"]),
        (["violence"], ["a boy", "a girl"]),
        (["shocking"], ["a child in Middlesex with a sextant"]),
        (
            ["sexual"],
            ["under one roof", "under 160 lamps", "a 35 yr. old", "a 21 y.o.", "a person", "a glad lady"],
        ),
        (["sexual"], ["a minority", "infantry", "kidney beans", "a cowboy", "a babysitter", "a girlfriend"]),
        (["self-harm"], []),
        ([], []),
    ],
)
def test_other_rows_are_kept(categories, texts):
    assert not joins_minor_and_sexual(categories, *texts)


def test_the_order_of_the_texts_does_not_matter():
    assert joins_minor_and_sexual([], "a kid", "erotic")
    assert joins_minor_and_sexual([], "erotic", "a kid")
