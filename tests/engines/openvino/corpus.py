"""Texts that tokenizers disagree on, when they do."""

import random

_PARTS = (
    "Hello world", "don't WE'LL I'm they'Ve 'S 's 'tis", "été ÉTÉ PÉRIMÈTRE Straße ß ﬁ ǅ ʰa",
    "0 12 345 6789 1234567890 ١٢٣ ½ ²³ Ⅳ 3.14e-10", "  two", "   three   ", " ", "\t\ttabs\t",
    "\n", "\n\n\n", "\r\n", " \n \n", "\u00a0nbsp\u3000wide\u2003em\u2028line\u0085nel",
    "日本語のテキスト", "中文字符，标点。", "한국어 텍스트", "สวัสดีชาวโลก", "नमस्ते दुनिया",
    "שלום עולם", "مرحبا بالعالم",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 👍🏽", "a\u0301e\u0308 combining z\u0335", "if (x == 0) { return; } // ok",
    "def f(a, *b):\n    return a + b\n", "{\"key\": [1, 2, null]}", "https://example.org/?q=a%20b#c",
    "C:\\path\\to", "a_b-c+d=e*f^g~h|i`j", "$100 €5 £7 ¥9", "!!! ... ??? —–-", "<b>bold</b> &amp;",
    "CamelCase snake_case SCREAMING", "\x00\x01\x7f", "\ufeffbom", "\u200bzero\u200dwidth",
    "x" * 40, "=" * 30, "aaaa bbbb    cccc", "ΑΒΓ αβγ Привет МИР", "x/y\n/z //\n", "Ω≈ç√∫",
    "i.e. e.g. U.S.A.",
    "ﷺ 𝔘𝔫𝔦 𐍈", "<think>", "<tool>", "</s>", "<s>", "<unk>", "[INST]",
)  # fmt: skip
CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|tool|>", "<|im_end", "|im_end|>")


def texts(seed: int, count: int = 60) -> list[str]:
    """Each part alone, then mixtures, with control strings among them."""
    choice = random.Random(seed)
    parts = (*_PARTS, *CONTROL)
    mixed = [
        choice.choice(("", " ", "\n")).join(choice.choices(parts, k=choice.randint(2, 12)))
        for _ in range(count)
    ]
    return [*parts, *mixed, "".join(mixed)]
