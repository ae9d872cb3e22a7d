"""What both services share: their address, the server, who may call, and how a request is refused."""
