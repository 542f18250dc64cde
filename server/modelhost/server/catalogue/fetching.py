"""Failures of the step `fetch`: the data source, its files, the model's configuration."""

from modelhost.server.catalogue.entry import Entry, Step
from modelhost.v1.error_reason_pb2 import ErrorReason

FETCHING = (
    Entry(
        ErrorReason.ERROR_REASON_SOURCE_UNREACHABLE,
        Step.FETCH,
        "The data source does not answer",
        "The server's host cannot reach the Git server or GitLab: a name that is not known, a firewall, a proxy.",
        "`modelhost source test SOURCE` tries again and says what answers; once it does, `modelhost start NAME`.",
        "https://git.example.com/energy/turbine.git cannot be reached: Could not resolve host: git.example.com",
    ),
    Entry(
        ErrorReason.ERROR_REASON_SOURCE_UNAVAILABLE,
        Step.FETCH,
        "The data source fails, or refuses for now",
        "A GitLab that is being updated or that limits requests answers 429, 502 or a page instead of data.",
        "Try again in a while with `modelhost start NAME`; `modelhost source test SOURCE` says how it stands.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_SOURCE_ACCESS_DENIED,
        Step.FETCH,
        "The data source refuses the credentials",
        "The token is of another project or lacks a scope, or its owner is no member: reading code takes the role"
        " Reporter and the scopes read_api and read_repository.",
        "Give it a token that may read: `modelhost source update SOURCE --gitlab-token-file FILE`; then"
        " `modelhost source test SOURCE`.",
        "fatal: Authentication failed for 'https://git.example.com/energy/turbine.git/'",
    ),
    Entry(
        ErrorReason.ERROR_REASON_SOURCE_TOKEN_EXPIRED,
        Step.FETCH,
        "The token has expired",
        "GitLab's tokens end on a day that is set when they are made, one year later at most, or are revoked.",
        "Make a new token and give it to the source: `modelhost source update SOURCE --gitlab-token-file FILE`; then"
        " `modelhost start NAME`.",
        '{"error":"invalid_token","error_description":"Token is expired. You can either do re-authorization or token'
        ' refresh."}',
    ),
    Entry(
        ErrorReason.ERROR_REASON_SOURCE_CERTIFICATE_INVALID,
        Step.FETCH,
        "The data source's certificate cannot be verified",
        "The GitLab is signed by an authority of your own, which this host does not know, or its certificate has"
        " expired.",
        "Give the source its authority's certificate: `modelhost source update SOURCE --gitlab-ca-file PEM`; then"
        " `modelhost source test SOURCE`.",
        "server certificate verification failed. CAfile: none CRLfile: none",
    ),
    Entry(
        ErrorReason.ERROR_REASON_HOST_NOT_ALLOWED,
        Step.FETCH,
        "The server may not go to the data source's host",
        "Whoever runs the server lists the hosts that models may come from. Without a list it goes to all but its own"
        " loopback, link-local addresses and what clouds have for metadata. What counts is the address that a name has"
        " now, and where a redirect or a link to Git LFS leads.",
        "Have the host listed: `modelhost serve --git-host HOST`, or MODELHOST_GIT_HOSTS; `modelhost source test"
        " SOURCE` says whether that is enough.",
        "git.example.com is at 169.254.169.254, a link-local address, which this server goes to only if it is listed",
    ),
    Entry(
        ErrorReason.ERROR_REASON_PROJECT_NOT_FOUND,
        Step.FETCH,
        "No such project",
        "It was renamed or moved, or the token may not see it: GitLab says the same of both.",
        "`modelhost source projects SOURCE` lists those that the token sees; `modelhost update NAME --project PATH`"
        " takes another.",
        "remote: The project you were looking for could not be found or you don't have permission to view it.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_NAMESPACE_NOT_FOUND,
        Step.FETCH,
        "No such group or user",
        "The group was renamed, or the token may not see it.",
        "Correct it: `modelhost source update SOURCE --namespace PATH`; `modelhost source projects SOURCE` lists what"
        " is in it.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_REF_NOT_FOUND,
        Step.FETCH,
        "No such branch, tag or commit",
        "The branch was deleted or renamed (master to main), or history was rewritten and the commit is gone.",
        "`modelhost source refs SOURCE` lists branches and tags; `modelhost update NAME --ref REF` takes another.",
        'energy/turbine has no branch, tag or commit "mian"; is "main" meant?',
    ),
    Entry(
        ErrorReason.ERROR_REASON_PATH_NOT_FOUND,
        Step.FETCH,
        "No such file or directory",
        "`directory` or `paths` name what that commit does not have; names differ in upper and lower case.",
        "`modelhost source files SOURCE --ref REF` lists what the commit holds; then `modelhost update NAME --path"
        " PATH` or `--directory PATH`.",
        'the commit has no directory "modle"',
    ),
    Entry(
        ErrorReason.ERROR_REASON_PATH_REFUSED,
        Step.FETCH,
        "A file that cannot be deployed",
        "Links out of the repository, submodules and odd names would not mean on this host what they meant to the"
        " author.",
        "Mend the file in the repository, or deploy other paths: `modelhost update NAME --path PATH`.",
        'the link "data" leads to an absolute path',
    ),
    Entry(
        ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE,
        Step.FETCH,
        "Too many bytes or files",
        "Old repositories often hold training data beside the model.",
        "Deploy fewer files with `modelhost update NAME --path PATH`, or serve with a larger `--max-snapshot-bytes`.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_SNAPSHOT_CHANGED,
        Step.FETCH,
        "The commit's files are others than before",
        "The revision's files are not on this host any more, after a restore for example, and were fetched again. What"
        " came is not what the revision was made of: a repository of the same address with another content, or a file"
        " outside Git that was changed.",
        "Restore the repository, then `modelhost start NAME`; or `modelhost update NAME` makes a new revision of what"
        " is there now.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_MODEL_CONFIG_INVALID,
        Step.FETCH,
        "modelhost.toml cannot be read",
        "It is malformed, or has a key or a value that ModelHost does not know.",
        "Mend modelhost.toml, commit, and `modelhost update NAME`; or use the setting's flag, where it has one.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_SECRET_UNREADABLE,
        Step.ANY,
        "A stored secret does not open",
        "The state directory was copied without its secret.key, or that file was replaced.",
        "Restore the state directory's secret.key, or set the secret again: a token with `modelhost source update"
        " SOURCE --gitlab-token-file FILE`, a variable with `modelhost update NAME --secret-env VARIABLE`, the key of a"
        " service account with `modelhost account rotate ACCOUNT --now`.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_REVISION_SUPERSEDED,
        Step.ANY,
        "A revision that was overtaken",
        "A newer update or a rollback came before this revision was built, so it never ran.",
        "Nothing is wrong with it: `modelhost rollback NAME` runs it all the same, `modelhost diff NAME` shows what"
        " differs.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_DISK_FULL,
        Step.ANY,
        "The disk is full",
        "Files, environments, logs, workers' copies and the database itself lie in the state directory. What runs goes"
        " on; what could not be stored is as it was.",
        "Make room on the disk of the server's state directory: `modelhost environments collect` removes what nothing"
        " uses, and its `cache` may be deleted. Then try again.",
        "the disk of the server is full: No space left on device",
    ),
    Entry(
        ErrorReason.ERROR_REASON_INTERNAL,
        Step.ANY,
        "A fault of ModelHost",
        "Something happened that nobody foresaw.",
        "This is a fault of ModelHost: its own log has the details.",
    ),
)
