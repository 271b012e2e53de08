"""How many teachers so many students need: a discrete-event model of the service, fed with measured times."""
