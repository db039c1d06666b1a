"""Where data is: countries, unions of them, and what clouds call their regions."""

_EU = frozenset({
    "AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE", "IT", "LV",
    "LT", "LU", "MT", "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE",
})  # fmt: skip
_UNIONS = {"EU": _EU, "EEA": _EU | {"IS", "LI", "NO"}}
_OTHER_NAMES = {"UK": "GB", "USA": "US", "EUROPE": "EU", "GERMANY": "DE", "FRANCE": "FR"}
# From each cloud's page of its regions.
_CLOUD_REGIONS = {
    "us-east-1": "US", "us-east-2": "US", "us-west-1": "US", "us-west-2": "US",
    "eu-central-1": "DE", "eu-west-1": "IE", "eu-west-2": "GB", "eu-west-3": "FR",
    "eu-north-1": "SE", "eu-south-1": "IT", "eu-central-2": "CH",
    "eastus": "US", "eastus2": "US", "westus": "US", "westus2": "US", "westus3": "US",
    "centralus": "US", "southcentralus": "US", "northcentralus": "US",
    "westeurope": "NL", "northeurope": "IE", "germanywestcentral": "DE", "francecentral": "FR",
    "swedencentral": "SE", "uksouth": "GB", "switzerlandnorth": "CH", "polandcentral": "PL",
    "italynorth": "IT", "norwayeast": "NO", "spaincentral": "ES",
    "us-central1": "US", "us-east1": "US", "us-east4": "US", "us-west1": "US", "us-west4": "US",
    "europe-west1": "BE", "europe-west2": "GB", "europe-west3": "DE", "europe-west4": "NL",
    "europe-west6": "CH", "europe-west9": "FR", "europe-north1": "FI", "europe-southwest1": "ES",
    "asia-east1": "TW", "asia-northeast1": "JP", "asia-south1": "IN", "asia-southeast1": "SG",
    "australia-southeast1": "AU", "africa-south1": "ZA",
}  # fmt: skip


def place(name: str | None) -> str | None:
    """The country or union that a region is in; None where that is not known."""
    if not name:
        return None
    region = _CLOUD_REGIONS.get(name.lower())
    if region is not None:
        return region
    words = name.upper().replace("(", " ").split()
    code = _OTHER_NAMES.get(words[0], words[0])
    return code if len(code) == 2 or code in _UNIONS or code == "GLOBAL" else None


def within(region: str | None, allowed: frozenset[str]) -> bool | None:
    """Whether a region lies in one that data may be in; None where nobody can tell, as of a
    union when only one of its countries is allowed."""
    here = place(region)
    if here is None:
        return None
    unsure = False
    for each in allowed:
        wanted = place(each) or each.upper()
        if here == wanted or here in _UNIONS.get(wanted, frozenset()):
            return True
        if wanted in _UNIONS and here in _UNIONS:  # the EEA, where the EU is allowed
            if _UNIONS[here] <= _UNIONS[wanted]:
                return True
            unsure = True
        unsure = unsure or wanted in _UNIONS.get(here, frozenset())
    return None if unsure else False


def is_in(region: str | None, union: str) -> bool | None:
    return within(region, frozenset({union}))
