"""The one exception that a person is meant to read."""


class SuiteError(Exception):
    """Something the user can put right: the message says what, where and what to do.

    Notebooks show the message alone (IPython calls `_render_traceback_`), and so does
    `helpers.batch`: stack frames would bury the sentence that helps.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
