"""The interface for agents: a server of the Model Context Protocol (MCP) that asks and tells a running daemon."""
