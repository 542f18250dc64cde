"""Calls that are not let in, and calls over a limit of their grant."""

from modelhost.server.catalogue.entry import Entry, Step
from modelhost.v1.error_reason_pb2 import ErrorReason

ACCESS = (
    Entry(
        ErrorReason.ERROR_REASON_TOKEN_EXPIRED,
        Step.ACCESS,
        "The caller's token has expired",
        "A bearer token works for as long as `--token-lifetime` says, two hours by default, and no longer than the"
        " secret key that it was got with. API keys and operators' tokens end when it was said that they should.",
        "Get another token with IssueToken. Where the key itself has expired, `modelhost account rotate ACCOUNT` makes"
        " another; of an API key `modelhost account key ACCOUNT`, of an operator `modelhost operator rotate OPERATOR`.",
        "the token, or the key that it was got with, has expired; get another",
    ),
    Entry(
        ErrorReason.ERROR_REASON_ROLE_REQUIRED,
        Step.ACCESS,
        "The role does not include it",
        "A viewer looks, a deployer besides changes deployments and calls models, an admin besides decides who may do"
        " that. A service account is no operator, whatever it was granted.",
        "Do it as an operator who has the role; `modelhost operator update OPERATOR --role ROLE`, as an admin, gives"
        " another one.",
        "operators/ada has the role viewer, and UpdateDeployment needs deployer",
    ),
    Entry(
        ErrorReason.ERROR_REASON_LOGIN_THROTTLED,
        Step.ACCESS,
        "Too many wrong signatures",
        "After ten wrong signatures for an access key from one host, one in six seconds is looked at, right or wrong."
        " Other keys, and the same key from other hosts, are not slowed. What comes through one proxy is one host.",
        "Mend what signs, its secret key, its four lines or its host's clock; try again when `RetryInfo` says.",
        "too many wrong signatures for ak_5b1f0c9e2a7d4c3b8e6f from 10.1.2.3",
    ),
    Entry(
        ErrorReason.ERROR_REASON_TOO_MANY_TOKENS,
        Step.ACCESS,
        "More tokens than calls need",
        "An account may get 300 tokens at once, then one a second: each is a write to the disk, and is good for many"
        " calls. An application that asks for one before each call comes here.",
        "Keep a token for as long as it works, as the Python client does; try again when `RetryInfo` says.",
        "ak_5b1f0c9e2a7d4c3b8e6f has got too many tokens in a short time",
    ),
    Entry(
        ErrorReason.ERROR_REASON_RATE_LIMIT_EXCEEDED,
        Step.ACCESS,
        "Faster than the grant allows",
        "The account calls this service more often than its grant's `requests_per_second`, and has used up the `burst`"
        " that may come at once after a pause.",
        "Try again when `RetryInfo` says. `modelhost grant ACCOUNT SERVICE --rate N/s --burst N` allows more.",
        "service account shop may call this service 10 times a second",
    ),
    Entry(
        ErrorReason.ERROR_REASON_DAILY_QUOTA_EXCEEDED,
        Step.ACCESS,
        "The calls of the day are used up",
        "The account has called this service as often since midnight UTC as its grant's `requests_per_day` allows.",
        "Wait for midnight UTC. `modelhost grant ACCOUNT SERVICE --daily N` allows more; `modelhost grants` shows what"
        " was used.",
        "service account shop may call this service 100000 times a day, and has until midnight UTC",
    ),
    Entry(
        ErrorReason.ERROR_REASON_CONCURRENCY_LIMIT_EXCEEDED,
        Step.ACCESS,
        "Too many calls of one account at a time",
        "Calls that wait for a worker are under way, too.",
        "Try again once a call is over. `modelhost grant ACCOUNT SERVICE --concurrent N` allows more.",
        "service account shop has 4 calls of this service under way, and may have no more at a time",
    ),
    Entry(
        ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE,
        Step.ACCESS,
        "The request is larger than the grant allows",
        "The whole message counts, not only the parameters. Waiting does not help, so there is no `RetryInfo`.",
        "Send less in one call. `modelhost grant ACCOUNT SERVICE --request-bytes SIZE` allows more.",
        "the request has 70052 bytes, and service account shop may send 65536 to this service",
    ),
)
