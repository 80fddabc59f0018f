"""As much of the official client as the player of ours and the fake environments use: importing it takes seconds."""

import httpx


class AsyncOpenAI:
    def __init__(self, *, api_key, max_retries, base_url="", http=None):
        self._base_url, self._api_key, self._http = base_url, api_key, http or httpx.AsyncClient(timeout=60)
        self.chat = self.completions = self

    def copy(self, *, base_url, api_key):
        return AsyncOpenAI(api_key=api_key, max_retries=0, base_url=base_url, http=self._http)

    async def create(self, *, model, messages):
        """Return the message that the endpoint answers with."""
        answer = await self._http.post(
            f"{self._base_url}/chat/completions",
            json={"model": model, "messages": messages},
            headers={"authorization": f"Bearer {self._api_key}"},
        )
        answer.raise_for_status()
        return answer.json()["choices"][0]["message"]

    async def close(self):
        await self._http.aclose()
