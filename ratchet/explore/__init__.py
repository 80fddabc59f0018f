"""From tasks to groups: many attempts at once, each with its limits; a failed attempt becomes a counted status."""
