"""Categories of harm, the rule on minors, and the words that both are written in.

`categories` normalises the names of categories and families. `hard_rule` is the rule that has no switch:
it drops rows that join sexual content with a word for a minor; `words` holds the words it looks for.
`disguises` reads through spellings such as `w0rd`, and `terms` finds the user's own terms. To add a
spelling of a category, add it in `categories`; to add a word to the rule, add it in `words`.
"""
