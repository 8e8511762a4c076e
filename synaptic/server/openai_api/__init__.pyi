from .openai_bodies import ChatBody as ChatBody
from .openai_bodies import CompletionBody as CompletionBody
from .openai_bodies import EmbeddingBody as EmbeddingBody
from .openai_routes import OpenAiRoutes as OpenAiRoutes
from .openai_routes import openai_error as openai_error
from .responses_bodies import CountedInput as CountedInput
from .responses_bodies import ResponsesBody as ResponsesBody
from .responses_routes import ResponsesRoutes as ResponsesRoutes
