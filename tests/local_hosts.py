"""The places of tests are on loopback, where a server goes only if it is told to."""

from modelhost.server.sources.outgoing import Outgoing

LOCAL_HOSTS = ("*", "localhost")
LOCAL = Outgoing(LOCAL_HOSTS)
