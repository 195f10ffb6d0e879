"""How the application meets the network: the listening socket and uvicorn."""
