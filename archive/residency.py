"""Where recordings may lie: in the EU and the EEA, and only where it was declared.

The operator declares the country of the store, and of its copies. What the store itself says must
not contradict that. The names of regions are the providers' own: the same name is another country
at another provider, so each name is read as the provider means it whose host it came from. A name
that is not known contradicts nothing, and neither does the one that servers of one's own say unless
they are told another.
"""

import re
from dataclasses import dataclass

# fmt: off
EU = frozenset((
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE",
    "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
))
# fmt: on
EEA = EU | {"IS", "LI", "NO"}
"""Where a store may stand, by ISO 3166."""

OUTSIDE = "a country outside the EU and the EEA"

FAR = {
    r"(us|us-gov|us-iso\w?|ca|mx|sa|ap|cn|af|me|il)-(north|south|east|west|central)*-?\d+": OUTSIDE
}
"""What the large providers call their regions on other continents, and others after them."""

COUNTRY_FIRST = re.compile(r"([a-z]{2})-[a-z]{2,3}(-\d)?")
"""How some providers call all their regions: fr-par, de-fra-1, ch-dk-2."""

NAME_COUNTRIES = frozenset(("exo.io", "linodeobjects.com", "scw.cloud"))

PROVIDERS: dict[str, dict[str, str]] = {
    "amazonaws.com": {
        "": OUTSIDE,  # how it says us-east-1
        "us-east-1": OUTSIDE,
        "eu|eu-west-1": "IE",
        "eu-central-1": "DE",
        "eu-central-2": "CH",
        "eu-north-1": "SE",
        "eu-south-1": "IT",
        "eu-south-2": "ES",
        "eu-west-2": "GB",
        "eu-west-3": "FR",
    },
    "amazonaws.eu": {"eusc-de-east-1": "DE"},
    "backblazeb2.com": {r"eu-central-\d+": "NL", r"us-\w+-\d+": OUTSIDE},
    "cloud.ovh.net": {
        "gra|rbx|sbg|par|eu-west-par": "FR",
        "de": "DE",
        "waw": "PL",
        "eu-south-mil": "IT",
        "uk": "GB",
        r"bhs|ca-east-tor|sgp|syd|us-\w+": OUTSIDE,
    },
    "digitaloceanspaces.com": {
        "ams3": "NL",
        "fra1": "DE",
        "lon1": "GB",
        r"(nyc|sfo|sgp|blr|syd|tor|atl)\d": OUTSIDE,
    },
    "googleapis.com": {
        "europe-central2": "PL",
        "europe-north1": "FI",
        "europe-north2": "SE",
        "europe-southwest1": "ES",
        "europe-west1": "BE",
        "europe-west2": "GB",
        "europe-west3|europe-west10": "DE",
        "europe-west4": "NL",
        "europe-west6": "CH",
        "europe-west8|europe-west12": "IT",
        "europe-west9": "FR",
        r"us|asia|(us|asia|australia|northamerica|southamerica|me|africa)-\w+\d+": OUTSIDE,
    },
    "wasabisys.com": {
        "eu-central-1": "NL",
        "eu-central-2": "DE",
        "eu-west-1|eu-west-3": "GB",
        "eu-west-2": "FR",
        "eu-south-1": "IT",
        r"us-\w+-\d": OUTSIDE,
    },
    "your-objectstorage.com": {"fsn1|nbg1": "DE", "hel1": "FI"},
    "exo.io": {},
    "linodeobjects.com": {"eu-central-1": "DE", "us-east-1": OUTSIDE},
    "scw.cloud": {},
}
"""By the end of a host's name: its regions' names, and where each is."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Where a rule of the store's copies objects to; `region` is "" if the store does not say."""

    bucket: str
    region: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a store said. `regions`: names of its own region, "" where it gave an empty one.

    None: it could not be asked, which is not the same as having none.
    """

    host: str
    regions: frozenset[str] | None
    copies: tuple[Copy, ...] | None


def contradictions(country: str, replicas: frozenset[str], seen: Seen) -> list[str]:
    """What the store says against what was declared, a sentence each."""
    found = []
    named = (seen.regions or frozenset()) | _of_host(seen.host)
    for region in sorted(named):
        where = place(region, seen.host)
        if where not in (None, country):
            found.append(f"the store says that its region is {region or 'the first'}, in {where}")
    for copy in seen.copies or ():
        where = place(copy.region, seen.host) if copy.region else None
        if not replicas:
            found.append(
                f"the store copies to the bucket {copy.bucket}, and no replica is declared"
            )
        elif where is not None and where not in replicas:
            found.append(f"the store copies to the bucket {copy.bucket}, which is in {where}")
    return found


def told(country: str, replicas: frozenset[str], seen: Seen) -> str:
    """What was seen, for a person, where nothing contradicts."""
    copies = ", ".join(sorted(replicas))
    if seen.regions is None:
        region = "the region could not be asked"
    else:
        named = sorted(seen.regions - {""})
        region = f"the store names {', '.join(named)}" if named else "the store names no region"
    if seen.copies is None:
        replication = "replication could not be asked: look at the server that there is none"
    elif seen.copies:
        replication = f"copies to {len(seen.copies)} buckets, declared in {copies}"
    else:
        replication = "no replication"
    return f"declared {country}; {region}; {replication}"


def place(region: str, host: str) -> str | None:
    """Where the provider behind a host has its region; None if it is not known."""
    name = region.lower()
    provider = _provider(host)
    known = PROVIDERS.get(provider, {})
    for pattern, where in known.items():
        if re.fullmatch(pattern, name):
            return where
    first = COUNTRY_FIRST.fullmatch(name)
    if provider in NAME_COUNTRIES and first:
        code = first[1].upper()
        return code if code in EEA else OUTSIDE
    if name == "us-east-1":
        return None
    return next((where for pattern, where in FAR.items() if re.fullmatch(pattern, name)), None)


def _provider(host: str) -> str:
    return next((end for end in PROVIDERS if f".{host.lower()}".endswith(f".{end}")), "")


def _of_host(host: str) -> frozenset[str]:
    """The names of regions in a host's name: `s3.eu-north-1.amazonaws.com`, `s3-eu-west-1...`."""
    provider = _provider(host)
    labels = host.lower().removesuffix(provider).split(".")
    names = {label.removeprefix("s3-").removeprefix("sos-") for label in labels}
    return frozenset(name for name in names if name and place(name, host) is not None)
