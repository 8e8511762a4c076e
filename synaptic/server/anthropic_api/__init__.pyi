from .anthropic_bodies import CountBody as CountBody
from .anthropic_bodies import MessagesBody as MessagesBody
from .anthropic_replies import anthropic_models as anthropic_models
from .anthropic_routes import AnthropicRoutes as AnthropicRoutes
from .anthropic_routes import anthropic_error as anthropic_error
