"""The words that the hard rule finds, as parts of regular expressions; our choice, which prefers too many.

Texts are compared in lower case, without accents and other disguises, see `disguises`. Languages other than
English have only their most common words here.
"""

SEXUAL = (
    r"sex|sexy|sexo|sexe|sesso|seks\w*|sexual\w*|sexuali[sz]\w*|sext(?:s|ed|ing)?|"
    r"nud(?:e|es|ity|ism|ist|ists|o|a|i)|nues?|desnud[oa]s?|nackt\w*|naakt\w*|naturis[mt]s?|"
    r"naked(?:ness)?|nsfw|topless|bottomless|undress(?:es|ed|ing)?|unclothed|strip(?:ped|ping|tease|per|pers)|"
    r"lingerie|underwear|undies|pant(?:y|ies)|knickers|g[\s-]?strings?|bikinis?|erot\w*|porn\w*|pron|hentai|lewd|"
    r"obscen\w*|explicit|seduct\w*|seduc(?:e|es|ed|ing)|sensual|fetish|bdsm|bondage|orgasms?|org(?:y|ies)|"
    r"threesomes?|fondl\w*|grop(?:e|es|ed|ing|er|ers)|masturbat\w*|fellatio|blow[\s-]?jobs?|hand[\s-]?jobs?|"
    r"intercourse|genitals?|genitalia|penis\w*|vagin\w*|vulvas?|breast(?:s|ed)?|boob(?:s|y|ies)?|tits?|titties|"
    r"nipples?|buttocks|anal|cum(?:shots?|ming)?|semen|dicks?|cocks?|puss(?:y|ies)|fuck\w*|sluts?|slutty|"
    r"whor(?:e|es|ing)|rap(?:e|es|ed|ing|ists?)|molest\w*|incest|prostitut\w*|brothel|arous\w*|horny|"
    r"grooming|x[\s-]?rated|r[\s-]?18|xxx|upskirts?|thongs?|cleavage|ecchi|unclad|disrob(?:e|es|ed|ing)|"
    r"(?:without|no|any)[\s-]+cloth(?:es|ing)"
)
SEXUAL_CATEGORIES = (
    r"adults?(?:[\s-]?\w+)?"  # only as the name of a category; in a prompt it is not a sexual word
)
MINOR = (
    r"(?:step|grand|god|foster)?child(?:ren|hood|like|ish|s)?|kid(?:s|z|dies|die|dos?|dy)?|minors?|"
    r"under[\s-]?aged?|pre[\s-]?teen\w*|teen(?:s|y|ie|aged?)?|teenagers?|teeny[\s-]?bopp?ers?|tweens?|toddlers?|"
    r"tykes?|infants?|newborns?|bab(?:y|ies)|(?:boy|girl)(?:s|hood|ish)?|little[\s-]+(?:brother|sister|one)s?|"
    r"school[\s-]?(?:boy|girl|child|kid)s?|schoolchildren|adolescen(?:t|ts|ce)|juveniles?|youngsters?|youths?|"
    r"kindergart\w*|pre[\s-]?school\w*|(?:primary|elementary|grade|middle|junior|high)[\s-]?school\w*|"
    r"junior[\s-]+high|pupils?|(?:step|grand|god)?(?:son|daughter)s?|lads?|laddies?|lass(?:es|ies?)?|"
    r"lol(?:i|is|ita|itas)|shotas?|jail[\s-]?bait|prepubescent|pubescent|nymphets?|tots?|"
    r"nin[oa]s?|menin[oa]s?|chiquill[oa]s?|jovencit[oa]s?|criancas?|garot[oa]s?|menor(?:es)?|bambin[oaie]|"
    r"ragazzin[oaie]|fille(?:s|tte|ttes)?|garcons?|enfants?|mineure?s?|madchen|kindern?|kindes|jugendliche\w*|"
    r"meisjes?|jongetjes?|dziewczyn\w*|dzieck\w*|dzieci\w*|cocuk\w*"
)
# A single word that has both sides; the gaps are bounded, so that long words do not take long.
_GLUED_MINOR = r"(?:child(?:ren)?|kid|teen|loli|shota|girl|boy|baby|minor)"
_GLUED_SEXUAL = r"(?:porn|nud|naked|hentai|nsfw|sex)"
BOTH = (
    r"lolicons?|shotacons?|p(?:a)?edophil\w*|"
    rf"{_GLUED_MINOR}\w{{0,3}}{_GLUED_SEXUAL}\w*|{_GLUED_SEXUAL}\w{{0,3}}{_GLUED_MINOR}\w*"
)
_ORDINALS = (
    r"first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|"
    r"1st|2nd|3rd|[4-9]th|1[0-2]th"
)
_TEENS = r"twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
_UNDER_18 = rf"(?:[0-9]|1[0-7]|one|two|three|four|five|six|seven|eight|nine|ten|eleven|{_TEENS})"
# Numbers below twelve only in digits, because `under one roof` is not an age.
_BELOW = rf"(?:under|below|younger than)[\s:]+(?:[1-9]|1[0-8]|{_TEENS}|eighteen)"
AGE = (
    rf"{_UNDER_18}[\s-]*(?:years?|yrs?|months?|mos?)[\s.-]*(?:olds?|of age)|"
    rf"{_UNDER_18}[\s-]*(?:yrs?|y\.?\s?o|y/o|y)|"
    rf"age(?:d|s|\sof)?[\s:=-]*(?:(?:under|below|about|around|only|just|is)[\s:]+)?{_UNDER_18}|"
    rf"{_BELOW}|(?:{_ORDINALS})[\s-]grade(?:rs?)?"
)
BELOW_SIGN = r"<\s*1[0-8](?![0-9])"
# Found anywhere in a text: scripts without spaces, languages with many endings, and emoji of children.
SEXUAL_ELSEWHERE = (
    "обнажен", "голый", "голая", "голые", "секс", "эротич", "порно",
    "裸", "性交", "性爱", "性愛", "色情", "情色", "ヌード", "エロ", "セックス",
    "누드", "알몸", "섹스", "야한", "عاري", "جنس", "नग्न",
)  # fmt: skip
MINOR_ELSEWHERE = (
    "девоч", "мальчик", "ребен", "детск", "детей", "школьни", "малолет", "подрост",
    "少女", "少年", "女孩", "男孩", "儿童", "兒童", "小孩", "孩子", "幼女", "幼儿", "萝莉", "蘿莉", "未成年",
    "女童", "子供", "子ども", "こども", "幼児", "ロリ", "ショタ", "小学生", "中学生", "高校生", "女子高生",
    "소녀", "소년", "어린이", "미성년", "여자아이", "남자아이", "طفل", "أطفال", "बच्च", "लड़की",
    "👧", "👦", "👶", "🧒",
)  # fmt: skip
# Words that a starred word may stand for: `s*x`, `f**king`.
MASKED = """
    sex sexy sexual fuck fucks fucked fucking nude nudes naked porn cock dick pussy penis vagina rape raped
    tits cum anal erotic boobs slut whore child children kid kids girl girls boy boys teen teens minor minors
    loli shota baby infant toddler underage
""".split()
