"""Teachers, trainers and a name server, each a host of its own: a network namespace with one cable to a switch."""
