"""What language a text is in: by its script, and by the commonest words of those that are
written in Latin letters. A guess that is right for sentences and often not for single words."""

import re

UNKNOWN = "unknown"
_MAX_CHARACTERS = 4000
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("uk", re.compile(r"[іїєґІЇЄҐ]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
_COMMON = {
    "en": "the and is of to in that it was for my you with not have this are what how please does "
    "i can on your no when why where do did but from at be",
    "de": "der die das und ist nicht ich ein eine zu mit wie wird wurde bitte für auf den im dem",
    "fr": "le la les et est de un une je pas que pour dans mon ma des au votre il ne sur qui",
    "es": "el la los y es de un una que no por para en mi con las se del su porque está me",
    "it": "il la e è di un una che non per in mio con le si del della sono ho come gli",
    "pt": "o a e é de um uma que não por para em meu com os as do da está como uma",
    "nl": "de het een en is van niet ik dat voor met op mijn te zijn wordt hoe naar bij ook",
    "pl": "i w na nie się z do jest że mam jak to co dla przez moje czy proszę od po",
    "sv": "och är att det som en på jag för inte med min har av till den hur kan var",
    "tr": "ve bir bu için ile ne çok ben değil mi var nasıl olarak benim gibi daha",
}
_BY_WORD: dict[str, list[str]] = {}
for _language, _words in _COMMON.items():
    for _word in _words.split():
        _BY_WORD.setdefault(_word, []).append(_language)
_LETTERS = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """A two-letter code, or `unknown`."""
    head = text[:_MAX_CHARACTERS]
    letters = max(1, sum(len(each) for each in _LETTERS.findall(head)))
    for code, script in _SCRIPTS:
        if len(script.findall(head)) >= (0.02 if code == "uk" else 0.2) * letters:
            return code
    counts: dict[str, float] = {}
    for word in _LETTERS.findall(head.lower()):
        known = _BY_WORD.get(word, ())
        for code in known:
            counts[code] = counts.get(code, 0) + 1 / len(known)
    if not counts:
        return UNKNOWN
    best = max(counts, key=lambda code: counts[code])
    return best if counts[best] > 1 else UNKNOWN
