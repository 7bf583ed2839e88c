"""The AI SDK's ``useChat``, version 7: routes that its ``DefaultChatTransport`` talks to, and adapters for sources.

What is stored are UI message chunks, one JSON object for each; the protocol around them is written when they are read.
The protocol is that of the npm package ``ai`` 7 ("UI message stream", header ``x-vercel-ai-ui-message-stream: v1``).
"""

from streamhub.web.aisdk.anthropic import from_anthropic
from streamhub.web.aisdk.chat import ChatRequest, chat_routes
from streamhub.web.aisdk.chat_format import ChatFormat
from streamhub.web.aisdk.langchain import from_langchain
from streamhub.web.aisdk.message import as_message
from streamhub.web.aisdk.openai_chat import from_openai_chat
from streamhub.web.aisdk.openai_responses import from_openai_responses
from streamhub.web.aisdk.parts import OpenParts, UIChunk
from streamhub.web.aisdk.pydantic_ai import from_pydantic_ai
from streamhub.web.aisdk.text import from_text

__all__ = [
    "ChatFormat",
    "ChatRequest",
    "OpenParts",
    "UIChunk",
    "as_message",
    "chat_routes",
    "from_anthropic",
    "from_langchain",
    "from_openai_chat",
    "from_openai_responses",
    "from_pydantic_ai",
    "from_text",
]
