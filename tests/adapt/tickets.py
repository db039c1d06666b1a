"""Support tickets as a shop gets them, each with the team that it belongs to: 300 by default,
always the same for the same seed. `python tests/adapt/tickets.py` prints them as chat JSONL.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLASSES = (
    "billing",
    "shipping",
    "returns",
    "account",
    "technical",
    "product",
    "cancellation",
    "complaint",
)
SYSTEM = (
    "You route support tickets. Answer with one word, the team that the ticket belongs to: "
    + ", ".join(CLASSES)
    + "."
)

_SUBJECTS = {
    "billing": (
        "my card was charged twice for order {order}",
        "the invoice for {month} shows {amount}, but our contract says less",
        "I cannot find the VAT number on the receipt of {order}",
        "the voucher took nothing off the total of {amount}",
        "our accountant needs the {month} invoice as a PDF with the company address",
        "a payment of {amount} is still pending after {days} days",
        "the direct debit went to the wrong bank account in {month}",
        "you billed the yearly plan although I chose to pay monthly",
    ),
    "shipping": (
        "parcel {order} has been at the depot for {days} days",
        "the tracking page says delivered, but nothing is at the door",
        "can the {product} still arrive before {month}",
        "the courier left {order} with a neighbour that I do not know",
        "half of the delivery is missing: only the {product} was in the box",
        "I typed the wrong house number for {order} and it leaves today",
        "customs is holding {order} and asks for a form",
        "do you deliver the {product} to an island without a bridge",
    ),
    "returns": (
        "I would like to send the {product} back, it does not fit",
        "the return label for {order} does not print",
        "how long may I keep the {product} before sending it back",
        "the parcel shop refused the {product} that I am returning",
        "I sent {order} back {days} days ago and hear nothing of it",
        "may I exchange the {product} for the larger size",
        "the box of the {product} is torn, will you take it back",
        "the return of {order} was booked as one piece instead of two",
    ),
    "account": (
        "I am locked out after typing my password wrong",
        "the confirmation mail for my new address never comes",
        "please merge my two customer profiles, one is from {month}",
        "somebody signed in as me from another country {days} days ago",
        "my phone with the login codes is broken",
        "how do I add a colleague to our company profile",
        "the user name still shows my maiden name",
        "I want to see which devices are signed in to my profile",
    ),
    "technical": (
        "the app closes by itself as soon as I open the {product} page",
        "pairing the {product} with my tablet fails with error {code}",
        "since the update the {product} loses its connection every few minutes",
        "the website stays blank in my browser, error {code}",
        "the firmware of the {product} stops installing at 80 percent",
        "the API answers {code} for every call since {month}",
        "the {product} no longer wakes up after it was charged",
        "notifications arrive {days} hours late on my phone",
    ),
    "product": (
        "is the {product} waterproof enough for a sailing boat",
        "which cable comes with the {product}",
        "does the {product} work with the older charger",
        "what is the difference between the {product} and last year's",
        "how heavy is the {product} with its case",
        "will the {product} come in green again by {month}",
        "can the {product} be used by children under six",
        "is there a paper manual for the {product} in large print",
    ),
    "cancellation": (
        "please end my subscription at the end of {month}",
        "I no longer want {order}, it has not left yet",
        "how much notice must I give to leave the yearly plan",
        "stop the monthly box, we are moving abroad",
        "the button to end the trial is greyed out",
        "we close our branch and need none of the {days} seats any more",
        "I withdraw from the purchase of the {product} made yesterday",
        "my father died and his membership must be ended",
    ),
    "complaint": (
        "your colleague hung up on me while I explained about the {product}",
        "this is the third time that nobody calls me back",
        "the {product} was advertised with a gift that does not exist",
        "the fitter came {days} hours late and left dirt everywhere",
        "I was promised an answer by {month} and feel ignored",
        "the tone of your last message about {order} was insulting",
        "such poor workmanship as in this {product} I have never seen",
        "the hotline kept me waiting for {days} times the announced time",
    ),
}
_OPENINGS = ("Hello,", "Good morning.", "Hi team,", "Dear all,", "Hey,", "To whom it may concern:")
_CONTEXTS = (
    "I have been a customer since {year} and this is new to me.",
    "My neighbour {name} had the same and told me to write.",
    "I am writing from my phone on the train, so please excuse mistakes.",
    "We are a small office of {days} people in {town}.",
    "I looked through your help pages for an hour and found nothing.",
    "The chat on your site sent me here.",
    "It is a present for my sister {name}, so it matters to us.",
    "I tried it on two computers at home in {town}.",
    "On the telephone {name} asked me to put it in writing.",
    "Last {month} everything was fine.",
    "I am on holiday from Friday on.",
    "Nothing like that happened with your competitor in {year}.",
)
_ENDINGS = (
    "What should I do next?",
    "Please call me after five in the afternoon.",
    "A short answer is enough. Thanks, {name}",
    "Kind regards from {town}, {name}",
    "Could somebody look into it this week?",
    "I look forward to hearing from you.\n{name}",
    "Thank you for your patience with me.",
    "Who can help me with that?",
    "Cheers, {name}",
)
# The same matters in the words of those who write in another language.
_OTHER_LANGUAGES = {
    "billing": (
        "die Rechnung vom {month} über {amount} wurde mir doppelt abgebucht",
        "ma carte a été débitée deux fois pour la commande {order}",
        "me han cobrado {amount} dos veces por el pedido {order}",
    ),
    "shipping": (
        "das Paket {order} liegt seit {days} Tagen im Verteilzentrum und wird nicht geliefert",
        "le colis {order} est bloqué au dépôt depuis {days} jours",
        "el paquete {order} no ha llegado y lleva {days} días en el almacén",
    ),
    "returns": (
        "ich möchte den Artikel {product} zurückschicken, weil er nicht passt",
        "je voudrais renvoyer l'article {product} car il ne me va pas",
        "quiero devolver el artículo {product} porque no me queda bien",
    ),
    "account": (
        "ich komme nicht mehr in mein Konto, weil das Passwort gesperrt ist",
        "je ne peux plus me connecter à mon compte depuis {days} jours",
        "no puedo entrar en mi cuenta porque la contraseña está bloqueada",
    ),
    "technical": (
        "die App stürzt mit dem Fehler {code} ab, sobald ich sie öffne",
        "l'application se ferme avec l'erreur {code} dès que je l'ouvre",
        "la aplicación se cierra con el error {code} cuando la abro",
    ),
    "product": (
        "ist der Artikel {product} auch für den Regen geeignet und wie schwer ist er",
        "est-ce que l'article {product} est étanche et combien pèse-t-il",
        "me gustaría saber si el artículo {product} es impermeable y cuánto pesa",
    ),
    "cancellation": (
        "bitte kündigen Sie mein Abonnement zum Ende von {month}",
        "je souhaite résilier mon abonnement à la fin du mois de {month}",
        "quiero dar de baja mi suscripción a finales de {month}",
    ),
    "complaint": (
        "Ihr Mitarbeiter war sehr unhöflich zu mir und hat einfach aufgelegt",
        "votre collègue a été très impoli avec moi et il a raccroché",
        "su compañero fue muy grosero conmigo y me colgó el teléfono",
    ),
}
_WORDS = {
    "product": (
        "rain jacket",
        "espresso machine",
        "bicycle lamp",
        "reading light",
        "hiking tent",
        "desk chair",
        "wireless speaker",
        "garden hose",
        "winter boots",
        "baby monitor",
        "sewing machine",
        "solar panel",
    ),
    "month": ("January", "March", "April", "June", "August", "September", "November"),
    "name": ("Amira", "Jonas", "Lucía", "Pavel", "Grace", "Tomasz", "Hye-jin", "Femi", "Élodie"),
    "town": ("Leeds", "Graz", "Lyon", "Valencia", "Tampere", "Cork", "Bergen", "Porto", "Łódź"),
    "code": ("E104", "503", "E77", "0x80", "429", "E12"),
}


def tickets(
    count: int = 300, seed: int = 7, *, languages: bool = False
) -> Iterator[tuple[str, str]]:
    """`count` different tickets with their class, as many of each class as of any other.
    With `languages`, a quarter is in German, French or Spanish."""
    chance = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        label = CLASSES[len(seen) % len(CLASSES)]
        text = _ticket(chance, label, languages and chance.random() < 0.25)
        if text not in seen:
            seen.add(text)
            yield text, label


def examples(
    count: int = 300, seed: int = 7, *, languages: bool = False
) -> Iterator[dict[str, Any]]:
    """The tickets in OpenAI's fine-tuning format."""
    for text, label in tickets(count, seed, languages=languages):
        yield {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": text},
                {"role": "assistant", "content": label},
            ]
        }


def write(path: Path, count: int = 300, seed: int = 7, *, languages: bool = False) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for example in examples(count, seed, languages=languages):
            file.write(json.dumps(example, ensure_ascii=False) + "\n")
    return path


def _ticket(chance: random.Random, label: str, is_foreign: bool) -> str:
    filled = {name: chance.choice(words) for name, words in _WORDS.items()}
    filled |= {
        "order": f"{chance.choice('ABCDEFGH')}-{chance.randrange(10_000, 99_999)}",
        "amount": f"{chance.randrange(5, 900)}.{chance.randrange(100):02} €",
        "days": str(chance.randrange(2, 30)),
        "year": str(chance.randrange(2009, 2026)),
    }
    if is_foreign:
        sentence = chance.choice(_OTHER_LANGUAGES[label])
        return f"{sentence[0].upper()}{sentence[1:]}.\n{{name}}, {{town}}".format(**filled)
    subject = chance.choice(_SUBJECTS[label])
    context, ending = chance.choice(_CONTEXTS), chance.choice(_ENDINGS)
    opening = chance.choice(_OPENINGS)
    parts = [opening, f"{subject[0].upper()}{subject[1:]}.", context, ending]
    if chance.random() < 0.4:
        parts[1:3] = [context, f"{subject[0].upper()}{subject[1:]}."]
    if chance.random() < 0.3:
        parts.remove(ending)
    return " ".join(parts).format(**filled)


if __name__ == "__main__":
    for each in examples():
        sys.stdout.write(json.dumps(each, ensure_ascii=False) + "\n")
