"""The `kandinsky` command and the page in the browser."""
