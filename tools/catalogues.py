"""Bring the catalogues of the pages' words up to date with the templates and the code.

    .venv/bin/python tools/catalogues.py

A new text is added without a translation, and one that is no longer used is taken out; a test
fails until every text is translated.
"""

import io
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parents[1]
METHODS = [("templates/**.html", "jinja2"), ("**.py", "python")]
KEYWORDS = {"_": None, "marked": None, "count": (1, 2), "pgettext": ((1, "c"), 2)}
LANGUAGES = ("fi", "sv")
HEADER = b"""msgid ""
msgstr ""
"Content-Type: text/plain; charset=utf-8\\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\\n"

"""


def texts() -> Catalog:
    """Every text that a page may show."""
    catalogue = Catalog(charset="utf-8")
    web = ROOT / "web"
    for _, _, message, _, context in extract_from_dir(web, METHODS, keywords=KEYWORDS):
        catalogue.add(message, context=context)
    return catalogue


def read(language: str) -> Catalog:
    """The catalogue of a language as it is."""
    source = (ROOT / f"web/locales/{language}.po").read_bytes()
    return read_po(io.BytesIO(source), locale=language)


def main() -> None:
    """Write them all anew."""
    known = texts()
    for language in LANGUAGES:
        catalogue = read(language)
        catalogue.update(known, no_fuzzy_matching=True)
        catalogue.obsolete.clear()
        held = io.BytesIO()
        write_po(held, catalogue, omit_header=True, no_location=True, sort_output=True, width=96)
        (ROOT / f"web/locales/{language}.po").write_bytes(HEADER + held.getvalue())


if __name__ == "__main__":
    main()
