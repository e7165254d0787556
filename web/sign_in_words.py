"""The words of the sign-in pages in Finnish, Swedish and English.

The templates have them in English, as the ids that gettext would know them by.
"""

from collections.abc import Callable

LANGUAGES = ("fi", "sv", "en")
NAMES = {"fi": "Suomi", "sv": "Svenska", "en": "English"}

_WORDS: dict[str, tuple[str, str]] = {
    "Call archive": ("Puheluarkisto", "Samtalsarkiv"),
    "Sign in": ("Kirjaudu sisään", "Logga in"),
    "Sign out": ("Kirjaudu ulos", "Logga ut"),
    "Name": ("Käyttäjätunnus", "Användarnamn"),
    "Password": ("Salasana", "Lösenord"),
    "Code": ("Koodi", "Kod"),
    "Six digits from your application. Leave it empty the first time.": (
        "Sovelluksesi kuusi numeroa. Jätä tyhjäksi ensimmäisellä kerralla.",
        "Sex siffror från din app. Lämna tomt första gången.",
    ),
    "The name, the password or the code is wrong. A code can be used once only.": (
        "Käyttäjätunnus, salasana tai koodi on väärä. Koodia voi käyttää vain kerran.",
        "Användarnamnet, lösenordet eller koden är fel. En kod kan användas bara en gång.",
    ),
    "Signing in failed too often. Try again in %(seconds)s seconds.": (
        "Kirjautuminen epäonnistui liian monta kertaa. Yritä uudelleen %(seconds)s sekunnin"
        " kuluttua.",
        "Inloggningen misslyckades för många gånger. Försök igen om %(seconds)s sekunder.",
    ),
    "Every sign-in is written down.": (
        "Jokaisesta kirjautumisesta jää merkintä.",
        "Varje inloggning antecknas.",
    ),
    "You are signed in": ("Olet kirjautunut sisään", "Du är inloggad"),
    "You are signed out": ("Olet kirjautunut ulos", "Du är utloggad"),
    "You are not signed in": ("Et ole kirjautunut sisään", "Du är inte inloggad"),
    "Sign in with your organisation": (
        "Kirjaudu organisaatiosi tunnuksella",
        "Logga in med din organisation",
    ),
    "Your organisation knows you, but you have no rights here."
    " Whoever runs the archive can say who has.": (
        "Organisaatiosi tuntee sinut, mutta sinulla ei ole oikeuksia täällä. Arkiston ylläpitäjä"
        " kertoo, kenellä on.",
        "Din organisation känner dig, men du har inga rättigheter här. Den som driver arkivet kan"
        " säga vem som har.",
    ),
    "Your organisation's answer did not count. Begin again.": (
        "Organisaatiosi vastausta ei hyväksytty. Aloita alusta.",
        "Din organisations svar godkändes inte. Börja om.",
    ),
    "Go on": ("Jatka", "Fortsätt"),
    "Set up your account": ("Ota tilisi käyttöön", "Ta ditt konto i bruk"),
    "Read this into an application for one-time codes, or type the letters below it.": (
        "Lue tämä kertakoodisovellukseen tai kirjoita kuvan alla olevat merkit.",
        "Läs in detta i en app för engångskoder, eller skriv in tecknen under bilden.",
    ),
    "The code that it shows": ("Sovelluksen näyttämä koodi", "Koden som den visar"),
    "A password of your own": ("Oma salasanasi", "Ditt eget lösenord"),
    "Once more": ("Uudelleen", "En gång till"),
    "At least 12 characters; any are good, but nothing that is guessed soon.": (
        "Vähintään 12 merkkiä; mitkä tahansa kelpaavat, mutta ei mikään helposti arvattava.",
        "Minst 12 tecken; vilka som helst går bra, men inget som är lätt att gissa.",
    ),
    "The password has less than 12 characters.": (
        "Salasanassa on alle 12 merkkiä.",
        "Lösenordet har färre än 12 tecken.",
    ),
    "The password has more than 256 characters.": (
        "Salasanassa on yli 256 merkkiä.",
        "Lösenordet har fler än 256 tecken.",
    ),
    "The password has your name in it.": (
        "Salasanassa on käyttäjätunnuksesi.",
        "Lösenordet innehåller ditt användarnamn.",
    ),
    "This password is guessed soon. Take a longer one, or words that nobody expects.": (
        "Tämä salasana on pian arvattu. Valitse pidempi tai sanoja, joita kukaan ei odota.",
        "Det här lösenordet är snart gissat. Välj ett längre, eller ord som ingen väntar sig.",
    ),
    "Take another password than the one that you were given.": (
        "Valitse eri salasana kuin se, jonka sait.",
        "Välj ett annat lösenord än det du fick.",
    ),
    "The two passwords are not the same.": (
        "Salasanat eivät ole samat.",
        "Lösenorden är inte lika.",
    ),
    "The code is wrong. Is the clock of your telephone right?": (
        "Koodi on väärä. Onko puhelimesi kello oikeassa?",
        "Koden är fel. Går klockan i din telefon rätt?",
    ),
}


def of(language: str) -> Callable[[str], str]:
    """What says a text in this language."""
    if language == "en":
        return lambda text: text
    place = 0 if language == "fi" else 1
    return lambda text: _WORDS[text][place]
