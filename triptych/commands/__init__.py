"""The subcommands of `triptych`: each has EXAMPLES, `add_arguments(parser)` and `run(options)`."""
