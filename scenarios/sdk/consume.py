"""An application of the published Python SDK, as it is written without an agent: it tries again where no answer came.

    consume.py SERVER_URL API_KEY SHARED_KEY PUBLIC_KEY_FILE LICENSE_KEY HARDWARE_ID UNITS

Needs `pip install licensespring==4.0.0`.
"""

import sys

from licensespring.api import APIClient
from licensespring.api.signature import SignatureVerifier

url, api_key, shared_key, public_key_file, license_key, hardware_id, units = sys.argv[1:]


class Device:
    """The device that the licence is bound to."""

    def get_id(self):
        return hardware_id


class Verifier(SignatureVerifier):
    """The SDK's own verifier, with the server's public key."""

    with open(public_key_file, encoding="utf-8") as file:
        PUBLIC_KEY = file.read()


client = APIClient(
    api_key=api_key,
    shared_key=shared_key,
    hardware_id_provider=Device,
    signature_verifier=Verifier,
    api_protocol="http",
    api_domain=url.removeprefix("http://"),
)

for attempt in range(3):
    try:
        answer = client.add_consumption(
            product="inspect", license_key=license_key, consumptions=int(units)
        )
        print(f"total {answer['total_consumptions']} after attempt {attempt + 1}")
        sys.exit(0)
    except Exception as error:
        print(f"attempt {attempt + 1}: {type(error).__name__}", file=sys.stderr)
sys.exit(1)
