"""Words that templates are filled with, and which of them a tokenizer writes as one token."""

from __future__ import annotations

from openwork.errors import BadInput
from openwork.tasks.reader import Reader

_ARGUMENTS = """
action address alias amount angle answer app arg array attr author axis back bar base batch bits block body bound
box buffer cache call cell channel char check child client code color column command comment config context copy
core count cursor data date day delay delta depth device dict digit doc document domain duration edge element
encoding end entry env epoch err error event extra factor field file filename first flag folder foo font form
format frame function group handle handler head header height host hour image index info init input instance item
job join key keyword kind label lang last layer left length level limit line link list load local lock log loop
main map mark mask match max message method min mock mode model module month msg name names new node note number
obj object offset option order out output owner pack page parent parser part password path pattern phase place
point pool port position power prefix price process product profile prompt query queue random rank rate ratio
read reason record red region remote request response result right role root round row rule run sample scale
schema scope score screen seed sender sequence server service session set shape side sig signal size skip socket
sort source space spec speed stack stage start state status step stop store stream string style sub subject
suffix support system table tag target task temp template test text thread time title token tool top total trace
tree type unit update url user valid value values vector version view wait warning weight width win window word
write year zip zone
"""
ARGUMENTS = tuple(_ARGUMENTS.split())
"""Names that Python functions give their arguments."""

_PROSE = """
able about again all also any apart around because been before below better between both bring came careful
carry clear close come deep done down each early easy either enough even ever every exact fast few fine full
gives goes good great half hard here high hold keep kept large late least less light likely little long low made
make many mostly much nearly never next often once only over plain quick quite rather ready same several short
simple since slow small some soft soon still strong such sure than then there thin those though under until upper
usual very warm well where which whole wide without
"""
PROSE = tuple(_PROSE.split())
"""Words of descriptions, none of which is an argument."""


def single_tokens(reader: Reader, before: str, needed: int, words: tuple[str, ...] = ARGUMENTS) -> list[str]:
    """The words that are one token when they continue a text.

    Args:
        reader: the tokenizer.
        before: what comes before the word, e.g. ``", "``; a space at its end belongs to the word's token.
        needed: how many the task needs.
        words: which words to try.

    Raises:
        BadInput: if fewer than `needed` are.
    """
    text, space = before.rstrip(" "), " " if before.endswith(" ") else ""
    found = [word for word in words if len(reader.continuation(text, space + word)) == 1]
    if len(found) < needed:
        raise BadInput(
            f"expected a tokenizer that writes at least {needed} common argument names after {before!r} as one token "
            f"each; this one does so for {len(found)} of {len(words)}: use a tokenizer with whole words"
        )
    return found
