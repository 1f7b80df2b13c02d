# @summary The name of an option, as oslo.config spells it: no blanks, and nothing that ends a name or starts a comment.
type Om_messaging::Key = Pattern[/\A[^\s=:#;\[\]]+\z/]
