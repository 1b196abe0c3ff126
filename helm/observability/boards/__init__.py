"""The dashboards, one a module: data only."""

from helm.observability.boards.capacity import CAPACITY
from helm.observability.boards.engine import ENGINES
from helm.observability.boards.gateway import GATEWAY
from helm.observability.boards.gpu import GPU
from helm.observability.boards.overview import OVERVIEW
from helm.observability.boards.tenants import TENANTS

BOARDS = (OVERVIEW, GATEWAY, ENGINES, GPU, TENANTS, CAPACITY)
"""In the order in which one looks."""

__all__ = ["BOARDS"]
