"""Where regions are: the country, for rules about residence, and how far apart, for what no
network is faster than.

Cities are those that the providers name for their regions; coordinates are of the city, or of
the middle of a country, with the distance to its farthest corner."""

from math import asin, cos, radians, sin, sqrt
from typing import NamedTuple

# Of light in fibre, km/s: 299,792 by the index of 1.468 (ITU-T G.652 fibre at 1550 nm).
_FIBRE_KM_S = 299_792.458 / 1.468
_EARTH_KM = 6371.0
_AROUND_A_CITY_KM = 150.0


class Place(NamedTuple):
    country: str
    latitude: float
    longitude: float
    radius_km: float = _AROUND_A_CITY_KM


_EU = frozenset(
    {
        "at", "be", "bg", "cy", "cz", "de", "dk", "ee", "es", "fi", "fr", "gr", "hr", "hu",
        "ie", "it", "lt", "lu", "lv", "mt", "nl", "pl", "pt", "ro", "se", "si", "sk",
    }
)  # fmt: skip
AREAS = {"eu": _EU, "eea": _EU | {"is", "li", "no"}}

_COUNTRIES = {
    "at": (47.6, 14.1, 320), "au": (-25.7, 134.5, 2300), "be": (50.6, 4.7, 160),
    "br": (-10.8, -53.1, 2400), "ca": (61.4, -98.3, 3100), "ch": (46.8, 8.2, 190),
    "cl": (-37.7, -71.4, 2300), "cz": (49.7, 15.3, 260), "de": (51.1, 10.4, 460),
    "dk": (56.0, 10.0, 330), "es": (40.2, -3.6, 1900), "fi": (64.5, 26.3, 620),
    "fr": (46.6, 2.5, 620), "gb": (54.1, -2.9, 780), "ie": (53.2, -8.1, 270),
    "il": (31.5, 35.0, 230), "in": (22.9, 79.6, 1700), "it": (42.8, 12.1, 720),
    "jp": (37.6, 138.0, 1700), "kr": (36.4, 127.8, 400), "mx": (23.9, -102.5, 1800),
    "nl": (52.1, 5.3, 190), "no": (64.5, 13.0, 1800), "nz": (-41.8, 171.5, 900),
    "pl": (52.1, 19.4, 390), "pt": (39.6, -8.6, 1600), "se": (62.8, 16.7, 830),
    "sg": (1.35, 103.8, 40), "us": (45.7, -112.5, 4900), "za": (-29.0, 25.1, 950),
}  # fmt: skip

_CITIES = {
    "atlanta": ("us", 33.7, -84.4), "berlin": ("de", 52.5, 13.4), "chicago": ("us", 41.9, -87.6),
    "frankfurt": ("de", 50.1, 8.7), "london": ("gb", 51.5, -0.1), "madrid": ("es", 40.4, -3.7),
    "melbourne": ("au", -37.8, 145.0), "mumbai": ("in", 19.1, 72.9),
    "new-york": ("us", 40.7, -74.0),
    "paris": ("fr", 48.9, 2.4), "san-francisco": ("us", 37.8, -122.4),
    "sao-paulo": ("br", -23.5, -46.6),
    "seoul": ("kr", 37.6, 127.0), "singapore": ("sg", 1.35, 103.8), "stockholm": ("se", 59.3, 18.1),
    "sydney": ("au", -33.9, 151.2), "tokyo": ("jp", 35.7, 139.7), "toronto": ("ca", 43.7, -79.4),
    "vienna": ("at", 48.2, 16.4), "warsaw": ("pl", 52.2, 21.0), "zurich": ("ch", 47.4, 8.5),
    # Amazon
    "us-east-1": ("us", 39.0, -77.5), "us-east-2": ("us", 40.0, -83.0),
    "us-west-1": ("us", 37.4, -121.9), "us-west-2": ("us", 45.8, -119.7),
    "ca-central-1": ("ca", 45.5, -73.6), "sa-east-1": ("br", -23.5, -46.6),
    "eu-central-1": ("de", 50.1, 8.7), "eu-central-2": ("ch", 47.4, 8.5),
    "eu-west-1": ("ie", 53.3, -6.3), "eu-west-2": ("gb", 51.5, -0.1),
    "eu-west-3": ("fr", 48.9, 2.4), "eu-north-1": ("se", 59.3, 18.1),
    "eu-south-1": ("it", 45.5, 9.2), "eu-south-2": ("es", 41.6, -0.9),
    "ap-northeast-1": ("jp", 35.7, 139.7), "ap-northeast-2": ("kr", 37.6, 127.0),
    "ap-south-1": ("in", 19.1, 72.9), "ap-southeast-1": ("sg", 1.35, 103.8),
    "ap-southeast-2": ("au", -33.9, 151.2), "af-south-1": ("za", -33.9, 18.4),
    "il-central-1": ("il", 32.1, 34.8), "mx-central-1": ("mx", 20.6, -100.4),
    # Google
    "us-central1": ("us", 41.3, -95.9), "us-east1": ("us", 33.2, -80.0),
    "us-east4": ("us", 39.0, -77.5), "us-east5": ("us", 40.0, -83.0),
    "us-south1": ("us", 32.8, -96.8), "us-west1": ("us", 45.6, -121.2),
    "us-west2": ("us", 34.1, -118.2), "us-west4": ("us", 36.2, -115.1),
    "europe-west1": ("be", 50.4, 3.8), "europe-west2": ("gb", 51.5, -0.1),
    "europe-west3": ("de", 50.1, 8.7), "europe-west4": ("nl", 53.4, 6.8),
    "europe-west6": ("ch", 47.4, 8.5), "europe-west8": ("it", 45.5, 9.2),
    "europe-west9": ("fr", 48.9, 2.4), "europe-west10": ("de", 52.5, 13.4),
    "europe-north1": ("fi", 60.6, 27.2), "europe-central2": ("pl", 52.2, 21.0),
    "europe-southwest1": ("es", 40.4, -3.7), "asia-east1": ("tw", 24.1, 120.5),
    "asia-northeast1": ("jp", 35.7, 139.7), "asia-northeast3": ("kr", 37.6, 127.0),
    "asia-south1": ("in", 19.1, 72.9), "asia-southeast1": ("sg", 1.35, 103.8),
    "australia-southeast1": ("au", -33.9, 151.2), "africa-south1": ("za", -26.2, 28.0),
    "northamerica-northeast1": ("ca", 45.5, -73.6), "southamerica-east1": ("br", -23.5, -46.6),
    # Microsoft
    "eastus": ("us", 37.4, -79.4), "eastus2": ("us", 36.7, -78.4),
    "centralus": ("us", 41.6, -93.6), "southcentralus": ("us", 29.4, -98.5),
    "northcentralus": ("us", 41.9, -87.6), "westus": ("us", 37.8, -122.4),
    "westus2": ("us", 47.2, -119.9), "westus3": ("us", 33.4, -112.1),
    "westeurope": ("nl", 52.4, 4.9), "northeurope": ("ie", 53.3, -6.3),
    "uksouth": ("gb", 51.5, -0.1), "francecentral": ("fr", 48.9, 2.4),
    "germanywestcentral": ("de", 50.1, 8.7), "swedencentral": ("se", 60.7, 17.1),
    "switzerlandnorth": ("ch", 47.4, 8.5), "norwayeast": ("no", 59.9, 10.8),
    "italynorth": ("it", 45.5, 9.2), "spaincentral": ("es", 40.4, -3.7),
    "polandcentral": ("pl", 52.2, 21.0), "canadacentral": ("ca", 43.7, -79.4),
    "brazilsouth": ("br", -23.5, -46.6), "japaneast": ("jp", 35.7, 139.7),
    "koreacentral": ("kr", 37.6, 127.0), "centralindia": ("in", 18.5, 73.9),
    "southeastasia": ("sg", 1.35, 103.8), "australiaeast": ("au", -33.9, 151.2),
    "southafricanorth": ("za", -26.2, 28.0),
}  # fmt: skip

PLACES = {name: Place(*at) for name, at in _CITIES.items()} | {
    name: Place(name, *at) for name, at in _COUNTRIES.items()
}


def is_within(region: str, area: str) -> bool | None:
    """Whether a region lies in a country or area; None where nobody here knows."""
    place = PLACES.get(region)
    if region == area:
        return True
    if area in AREAS:
        if region in AREAS:
            return AREAS[region] <= AREAS[area]
        return None if place is None else place.country in AREAS[area]
    if place is None:
        return None
    # A country holds its cities, and two cities are not one another.
    return place.country == area if area in PLACES or len(area) == 2 else None


def light_ms(here: str, there: str) -> float | None:
    """The least time in which anything is asked there and answered here: light through
    straight fibre, both ways, between the nearest points of both."""
    if here not in PLACES or there not in PLACES:
        return None
    one, other = PLACES[here], PLACES[there]
    km = max(_great_circle_km(one, other) - one.radius_km - other.radius_km, 0.0)
    return 2 * km / _FIBRE_KM_S * 1000


def _great_circle_km(one: Place, other: Place) -> float:
    """The haversine formula."""
    north, east = radians(other.latitude - one.latitude), radians(other.longitude - one.longitude)
    across = cos(radians(one.latitude)) * cos(radians(other.latitude)) * sin(east / 2) ** 2
    return 2 * _EARTH_KM * asin(sqrt(sin(north / 2) ** 2 + across))
