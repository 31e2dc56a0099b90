"""Undo disguises of words, so that a spelling does not get around a rule.

Undone: case, full-width and decorated letters, accents, invisible characters, look-alike letters of other
scripts, digits and signs for letters (`w0rd`), separated letters (`w o r d`, `w.o.r.d`), signs inside a word
(`wo-rd`), repeated letters (`wooord`), and stars for letters of a listed word (`w*rd`). Not undone: a space
inside a word (`wo rd`) and misspellings. The selection is our choice.
"""

import re
import unicodedata
from collections.abc import Iterable
from itertools import chain

_START, _LETTERS = "abcdefghijklmnopqrstuvwxyz", 26
# Letters that look like Latin ones, capitals by the shape of the capital; NFKD undoes what Unicode itself
# treats as equal. Cyrillic, Greek, Armenian, Cherokee, small capitals and phonetic letters, Latin.
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
# Letters on dark tiles and letters of flags, which NFKD does not change.
_TILES = {
    start + number: _START[number] for start in (0x1F150, 0x1F170, 0x1F1E6) for number in range(_LETTERS)
}
_BLANKS = dict.fromkeys((0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0))  # invisible, but letters to Unicode
_GONE = {"Cc", "Cf", "Cn", "Co", "Cs", "Mn", "Me", "Mc"}  # controls, formats, unassigned, marks

_LEET = dict(zip("03456789@$€+", "oeasgtbgaset", strict=True))
_LEET_TABLES = tuple(str.maketrans(_LEET | dict.fromkeys("1!|", letter)) for letter in "il")
# A word with digits or signs for letters; signs are between letters, and $ and @ also before them. The
# lookahead is bounded, because otherwise a long run of signs would be scanned again from each sign.
_LEET_WORD = r"(?<![a-z0-9])(?=[0-9@$€!|+]{0,32}[a-z])[$@€]?[a-z0-9]+(?:[@$€!|+]+[a-z0-9]+)*(?![a-z0-9])"
_SIGN_OR_DIGIT = r"[0-9@$€!|+]"
_APART = r"(?<![a-z0-9])(?:[a-z0-9][^a-z0-9]{1,3}){2,}[a-z0-9](?![a-z0-9])"
_SIGNS_INSIDE = r"(?<=[a-z0-9])[^\w\s]+(?=[a-z0-9])"
_DRAWN_OUT = r"([a-z])\1{2,}"
_STARRED = r"(?<![a-z0-9*])(?=\**[a-z])[a-z*]{2,24}(?![a-z0-9*])"
_BETWEEN = " " * 4 + "|" + " " * 4  # wider than the gap between separated letters


def readings(*texts: str) -> tuple[str, ...]:
    """Return the joined texts in lower case and plain letters, and every other way to read them.

    No word is read across two texts.

    Returns:
        The plain reading first, then the readings that differ from it. Nearly every text has one or two.
    """
    joined = _BETWEEN.join(map(plain, texts))
    unique = dict.fromkeys((joined, *_leet(joined)))
    for undo in (_together, _without_signs, _shortened, _leet):
        unique |= dict.fromkeys(chain.from_iterable(undo(reading) for reading in list(unique)))
    return tuple(unique)


def unmasked(text: str, words: Iterable[str]) -> str:
    """Replace every starred word in a reading by all words that it may stand for.

    A run of n stars stands for n or n + 1 letters: `w*rd`, `w**d`.
    """
    listed = tuple(words)

    def matching_words(starred: re.Match[str]) -> str:
        runs = re.sub(r"\*+", lambda run: f"[a-z]{{{len(run[0])},{len(run[0]) + 1}}}", starred[0])
        return " ".join(word for word in listed if re.fullmatch(runs, word)) or starred[0]

    return re.sub(_STARRED, matching_words, text)


def plain(text: str) -> str:
    """Return a text in lower case and plain letters."""
    if text.isascii() and text.isprintable():  # fast path for nearly every prompt
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
    """Read digits and signs as letters, in words that contain a letter; 1 may be i or l."""
    if not re.search(_SIGN_OR_DIGIT, text):
        return ()
    return tuple(
        re.sub(_LEET_WORD, lambda word, t=table: word[0].translate(t), text) for table in _LEET_TABLES
    )


def _together(text: str) -> tuple[str, ...]:
    """Read separated letters as a word, also without an article before or after it."""
    if not re.search(_APART, text):
        return ()
    ends = (slice(None), slice(1, None), slice(-1), slice(1, -1))
    return tuple(re.sub(_APART, lambda run, end=end: re.sub(r"[\W_]", "", run[0])[end], text) for end in ends)


def _without_signs(text: str) -> tuple[str, ...]:
    return (re.sub(_SIGNS_INSIDE, "", text),)


def _shortened(text: str) -> tuple[str, ...]:
    """Read repeated letters as one letter, and as two."""
    if not re.search(_DRAWN_OUT, text):
        return ()
    return (re.sub(_DRAWN_OUT, r"\1", text), re.sub(_DRAWN_OUT, r"\1\1", text))
