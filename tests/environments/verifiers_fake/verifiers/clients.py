"""Wraps the client of OpenAI."""


class OpenAIChatCompletionsClient:
    def __init__(self, client):
        self.client = client
