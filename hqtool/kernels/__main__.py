"""python -m hqtool.kernels: which form is in use, and why."""

from hqtool.kernels.form import form_in_use

form = form_in_use()
print(f"{form.name}: {form.reason}")
