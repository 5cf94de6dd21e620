"""A published client SDK against the stub and the agent.

The SDK's APIClient is used as it is published; only its address, key pair and public key are ours. Run by
`tests/conformance/run`, which installs it into a virtual environment and starts both servers.
"""

import argparse
import json
import sys
import traceback
import urllib.request

import licensespring
from licensespring.api import APIClient
from licensespring.api.error import ClientError
from licensespring.api.signature import SignatureVerifier

PRODUCT = "inspect"
DEVICE = "device-1"
KEY = "AAAA-BBBB-CCCC-DDDD"
USER = "field@example.com"

COUNTER_FIELDS = [
    "id",
    "max_consumptions",
    "total_consumptions",
    "allow_unlimited_consumptions",
    "allow_negative_consumptions",
    "allow_overages",
    "max_overages",
    "reset_consumption",
    "consumption_period",
]


class Device:
    """The device that the licences are bound to."""

    def get_id(self):
        return DEVICE


def client_for(domain, api_key, shared_key, public_key):
    """The SDK's client, pointed at a server of ours: the two-line change of an application."""

    class Verifier(SignatureVerifier):
        PUBLIC_KEY = public_key

    return APIClient(
        api_key=api_key,
        shared_key=shared_key,
        hardware_id_provider=Device,
        signature_verifier=Verifier,
        api_protocol="http",
        api_domain=domain,
    )


class Conformance:
    """The checks. Each is a method whose name says what holds; they run in the order of the file."""

    def __init__(self, args, keys):
        self.args = args
        self.keys = keys
        self.client = self.connect(keys["api_key"], keys["shared_key"])

    def connect(self, api_key, shared_key):
        return client_for(self.args.domain, api_key, shared_key, self.keys["public_key"])

    def add(self, **fields):
        fields.setdefault("license_key", KEY)
        return self.client.add_consumption(product=PRODUCT, **fields)

    def total(self):
        """The licence's total, asked for by adding nothing."""
        return self.add(consumptions=0)["total_consumptions"]

    def check_refused(self, code, call, status=400):
        try:
            answer = call()
        except ClientError as error:
            assert error.code == code, f"{error!r} instead of {code}"
            assert error.status == status, f"{error!r} instead of {status}"
            assert error.message, "a refusal has a message"
            return
        raise AssertionError(f"{answer} instead of {code}")

    # === what an application does ===

    def check_license_tells_the_whole_licence_and_its_signatures_hold(self):
        answer = self.client.check_license(product=PRODUCT, license_key=KEY)
        assert list(answer)[:9] == COUNTER_FIELDS, list(answer)
        assert answer["license_type"] == "consumption"
        assert answer["license_active"] and answer["license_enabled"] and not answer["is_expired"]
        # The older signature, by the SDK's own verifier; it raises where it does not hold.
        self.client.signature_verifier.verify_license_signature(
            DEVICE, KEY, answer["validity_period"], answer["license_signature"]
        )

    def the_default_is_one_unit(self):
        before = self.total()
        assert self.add()["total_consumptions"] == before + 1

    def explicit_units_are_added_and_the_answer_has_the_contracts_fields(self):
        before = self.total()
        answer = self.add(consumptions=5)
        assert answer["total_consumptions"] == before + 5
        assert list(answer) == COUNTER_FIELDS, list(answer)

    def a_user_based_licence_is_consumed_by_its_user_name(self):
        answer = self.client.add_consumption(product=PRODUCT, username=USER, consumptions=3)
        again = self.client.add_consumption(product=PRODUCT, username=USER)
        assert again["total_consumptions"] == answer["total_consumptions"] + 1
        checked = self.client.check_license(product=PRODUCT, username=USER)
        assert checked["total_consumptions"] == again["total_consumptions"]

    def a_licence_can_be_named_by_its_id_too(self):
        answer = self.client.add_consumption(product=PRODUCT, username=USER, license_id=2)
        assert answer["id"] == 2

    def a_feature_is_consumed_beside_its_licence(self):
        before = self.total()
        answer = self.client.add_feature_consumption(
            product=PRODUCT, license_key=KEY, feature="scan", consumptions=2
        )
        assert answer["code"] == "scan" and answer["total_consumptions"] == 2
        assert self.total() == before

    def overages_are_set_and_used(self):
        limited = {"license_key": "LIMITED"}
        self.check_refused(
            "license_not_enough_consumptions", lambda: self.add(consumptions=11, **limited)
        )
        answer = self.add(consumptions=12, allow_overages=True, max_overages=3, **limited)
        assert answer["total_consumptions"] == 12
        assert answer["allow_overages"] is True and answer["max_overages"] == 3
        self.check_refused(
            "license_not_enough_consumptions", lambda: self.add(consumptions=2, **limited)
        )
        assert self.add(consumptions=1, **limited)["total_consumptions"] == 13

    def a_total_is_lowered_where_that_is_allowed(self):
        assert self.add(license_key="NEGATIVE", consumptions=-4)["total_consumptions"] == -4

    # === what it is refused for ===

    def a_licence_that_cannot_be_used_is_refused_with_the_contracts_code(self):
        for code, fields in [
            ("license_not_found", {"license_key": "nobody's"}),
            ("license_not_enabled", {"license_key": "DISABLED"}),
            ("license_not_active", {"license_key": "INACTIVE"}),
            ("license_expired", {"license_key": "EXPIRED"}),
            ("license_not_consumption", {"license_key": "PERPETUAL"}),
            ("device_not_found", {"hardware_id": "another"}),
            ("blacklisted", {"hardware_id": "black"}),
            ("negative_consumptions_not_allowed", {"consumptions": -1}),
            ("validation_error", {"consumptions": "many"}),
        ]:
            self.check_refused(code, lambda fields=fields: self.add(**fields))

    def a_product_or_feature_that_does_not_exist_is_refused(self):
        self.check_refused(
            "unknown_product",
            lambda: self.client.add_consumption(product="nothing", license_key=KEY),
        )
        feature = {"product": PRODUCT, "license_key": KEY}
        self.check_refused(
            "unsupported_product_feature",
            lambda: self.client.add_feature_consumption(feature="nothing", **feature),
        )
        self.check_refused(
            "feature_not_enough_consumptions",
            lambda: self.client.add_feature_consumption(
                feature="scan", consumptions=100, **feature
            ),
        )

    def a_request_that_names_no_licence_is_refused(self):
        self.check_refused(
            "missing_parameters", lambda: self.client.add_consumption(product=PRODUCT)
        )

    def a_wrong_key_pair_is_refused(self):
        good, stranger = self.client, self.connect("nobody", "secret")
        forger = self.connect(self.keys["api_key"], "secret")
        for code, client in [("invalid_api_key", stranger), ("signature_mismatch", forger)]:
            self.check_refused(
                code,
                lambda client=client: client.add_consumption(product=PRODUCT, license_key=KEY),
            )
        assert self.client is good and self.total() >= 0

    def a_forged_answer_is_noticed_by_the_sdk(self):
        """The verifier is in force: with another key, the same answers are refused."""
        other = client_for(
            self.args.domain, self.keys["api_key"], self.keys["shared_key"],
            SignatureVerifier.PUBLIC_KEY,
        )
        try:
            other.check_license(product=PRODUCT, license_key=KEY)
        except ValueError:
            return
        raise AssertionError("an answer was accepted that another key signed")

    def what_was_refused_changed_nothing(self):
        before = self.total()
        self.check_refused(
            "license_not_enough_consumptions", lambda: self.add(consumptions=10_000_000)
        )
        assert self.total() == before


class AgentConformance(Conformance):
    """What only an agent does: it goes on without its server."""

    def offline_consumptions_are_counted_once_after_the_drop(self):
        before = self.server_total()
        self.network("offline")
        granted = sum(1 for _ in range(25) if self.add()["id"] == 1)
        assert self.server_total() == before, "the server was not reached"
        self.network("online")
        synced = self.call("POST", "/v1/sync", {})
        assert synced["synced"], synced
        assert self.server_total() == before + granted

    def network(self, mode):
        self.call("PUT", "/v1/network", {"mode": mode})

    def call(self, method, path, body):
        request = urllib.request.Request(
            f"http://{self.args.domain}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self.args.admin_token}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def server_total(self):
        self.call("POST", "/v1/sync", {})
        with urllib.request.urlopen(f"{self.args.control}/stub/v1/licenses/1", timeout=60) as answer:
            return json.load(answer)["total_consumptions"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", required=True, help="HOST:PORT of the server under test")
    parser.add_argument("--keys", required=True, help="a JSON file with the key pair")
    parser.add_argument("--control", help="the stub behind an agent under test")
    parser.add_argument("--admin-token", help="the file with the token of an agent under test")
    args = parser.parse_args()
    if args.admin_token:
        with open(args.admin_token, encoding="utf-8") as file:
            args.admin_token = file.read().strip()
    with open(args.keys, encoding="utf-8") as file:
        keys = json.load(file)
    with open(keys["public_key"], encoding="utf-8") as file:
        keys["public_key"] = file.read()

    kind = AgentConformance if args.control else Conformance
    conformance = kind(args, keys)
    helpers = {"connect", "add", "total", "check_refused", "network", "call", "server_total"}
    checks = [
        name
        for part in reversed(kind.__mro__)
        for name, value in vars(part).items()
        if callable(value) and not name.startswith("_") and name not in helpers
    ]
    failed = 0
    for name in checks:
        try:
            getattr(conformance, name)()
            print(f"ok      {name.replace('_', ' ')}")
        except Exception:
            failed += 1
            print(f"FAILED  {name.replace('_', ' ')}")
            traceback.print_exc()
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    print(f"licensespring {getattr(licensespring, 'version', '?')} (SDK, as published)")
    sys.exit(main())
