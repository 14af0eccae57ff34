"""What the processes of one server tell each other: each stage is a process of its own."""
