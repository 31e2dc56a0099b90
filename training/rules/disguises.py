"""What a text may say behind the spelling of its words, for rules that a spelling must not get round.

Undone: case, full-width and decorated letters, accents, invisible characters, letters of other scripts that
look like Latin ones, digits and signs for letters (`w0rd`), letters set apart (`w o r d`, `w.o.r.d`), signs
inside a word (`wo-rd`), letters drawn out (`wooord`), and stars for letters of a word that is looked for
(`w*rd`). Not undone: a space inside a word (`wo rd`), misspellings. Which of them count is our choice.
"""

import re
import unicodedata
from collections.abc import Iterable
from itertools import chain

_START, _LETTERS = "abcdefghijklmnopqrstuvwxyz", 26
# Letters that look like Latin ones, capitals by their own shape; what Unicode itself holds to be equal is
# undone by NFKD. Cyrillic, Greek, Armenian, Cherokee, small capitals and phonetic letters, Latin.
_LOOK_ALIKES = str.maketrans(
    "АВЕІЈКМНОРЅТУХСавгеіјкмноприѕтухсһԁԛԝӏ"
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧαεηικνορτυχ"
    "օսոհցզԱՏՕ"
    "ᎪᏴᏟᎠᎬᏳᎻᏆᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ"
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɑɡɩʋ"
    "ıłøđŧħ"
    "ςєəμ©Ꮒ",
    "ABEIJKMHOPSTYXCabreijkmhonpustyxchdqwl"
    "ABEZHIKMNOPTYXaenikvoptux"
    "ounhgqUSO"
    "ABCDEGHIJKLMPRSTVWZ"
    "abcdefghijklmnoprstuvwyzagiv"
    "ilodth"
    "ceeuch",
)
# Letters on dark tiles and the letters of flags, which NFKD leaves as they are.
_TILES = {
    start + number: _START[number] for start in (0x1F150, 0x1F170, 0x1F1E6) for number in range(_LETTERS)
}
_BLANKS = dict.fromkeys((0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0))  # look like nothing, count as letters
_GONE = {"Cc", "Cf", "Cn", "Co", "Cs", "Mn", "Me", "Mc"}  # controls, formats, unassigned, marks

_LEET = dict(zip("03456789@$€+", "oeasgtbgaset", strict=True))
_LEET_TABLES = tuple(str.maketrans(_LEET | dict.fromkeys("1!|", letter)) for letter in "il")
# A word of letters with digits or signs for letters; a sign stands between letters, or $ and @ before them.
# Bounded, or a long run of signs would be read again from each of them.
_LEET_WORD = r"(?<![a-z0-9])(?=[0-9@$€!|+]{0,32}[a-z])[$@€]?[a-z0-9]+(?:[@$€!|+]+[a-z0-9]+)*(?![a-z0-9])"
_SIGN_OR_DIGIT = r"[0-9@$€!|+]"
_APART = r"(?<![a-z0-9])(?:[a-z0-9][^a-z0-9]{1,3}){2,}[a-z0-9](?![a-z0-9])"
_SIGNS_INSIDE = r"(?<=[a-z0-9])[^\w\s]+(?=[a-z0-9])"
_DRAWN_OUT = r"([a-z])\1{2,}"
_STARRED = r"(?<![a-z0-9*])(?=\**[a-z])[a-z*]{2,24}(?![a-z0-9*])"
_BETWEEN = " " * 4 + "|" + " " * 4  # wider than what sets letters apart


def readings(*texts: str) -> tuple[str, ...]:
    """Return texts, joined, in lower case and plain letters, and every other way they may be meant.

    No word is read across two texts.

    Returns:
        The plain reading first, then those that differ from it. Nearly every text has one or two.
    """
    joined = _BETWEEN.join(map(plain, texts))
    found = dict.fromkeys((joined, *_leet(joined)))
    for undo in (_together, _without_signs, _shortened, _leet):
        found |= dict.fromkeys(chain.from_iterable(undo(reading) for reading in list(found)))
    return tuple(found)


def unmasked(text: str, words: Iterable[str]) -> str:
    """Return a text of `readings` with every starred word as all the words it may stand for.

    A run of stars stands for as many letters or one more: `w*rd`, `w**d`.
    """
    listed = tuple(words)

    def meant(found: re.Match[str]) -> str:
        runs = re.sub(r"\*+", lambda run: f"[a-z]{{{len(run[0])},{len(run[0]) + 1}}}", found[0])
        return " ".join(word for word in listed if re.fullmatch(runs, word)) or found[0]

    return re.sub(_STARRED, meant, text)


def plain(text: str) -> str:
    """Return a text in lower case and plain letters, see the module."""
    if text.isascii() and text.isprintable():  # nearly every prompt, and there are tens of thousands
        return text.casefold().replace("_", " ")
    decomposed = unicodedata.normalize("NFKD", text.translate(_TILES)).translate(_LOOK_ALIKES).casefold()
    return "".join(map(_plain_character, decomposed.translate(_BLANKS))).replace("_", " ")


def _plain_character(character: str) -> str:
    if character.isspace():
        return " "
    kind = unicodedata.category(character)
    if kind in _GONE:
        return ""
    if kind == "Nd":  # the digits of other scripts
        return str(unicodedata.decimal(character))
    return "-" if kind == "Pd" else character


def _leet(text: str) -> tuple[str, ...]:
    """Read digits and signs as letters, in words that have a letter; 1 may be i or l."""
    if not re.search(_SIGN_OR_DIGIT, text):
        return ()
    return tuple(
        re.sub(_LEET_WORD, lambda word, t=table: word[0].translate(t), text) for table in _LEET_TABLES
    )


def _together(text: str) -> tuple[str, ...]:
    """Read letters set apart as a word, also without an article before it or behind it."""
    if not re.search(_APART, text):
        return ()
    ends = (slice(None), slice(1, None), slice(-1), slice(1, -1))
    return tuple(re.sub(_APART, lambda run, end=end: re.sub(r"[\W_]", "", run[0])[end], text) for end in ends)


def _without_signs(text: str) -> tuple[str, ...]:
    return (re.sub(_SIGNS_INSIDE, "", text),)


def _shortened(text: str) -> tuple[str, ...]:
    """Read letters drawn out once, and twice."""
    if not re.search(_DRAWN_OUT, text):
        return ()
    return (re.sub(_DRAWN_OUT, r"\1", text), re.sub(_DRAWN_OUT, r"\1\1", text))
