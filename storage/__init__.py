"""What touches the outside: Postgres, S3, keys, audio; and the few verbs that move a recording."""
