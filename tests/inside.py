"What tests see of the inside of a client: the one place to change when it changes."
from conkernelclient.engine.life import Link


def links(kc):
    "The channels, of shell and iopub, whose connection is up"
    return {o for o, link in kc.connection.life.links.items() if link is Link.UP}

def sockets(kc):
    "The sockets, by channel"
    return {o: ch.socket for o, ch in kc.connection.transport.channels.items()}

def reader(kc, channel):
    "Reads a channel"
    return kc.connection.transport.channels[channel]
