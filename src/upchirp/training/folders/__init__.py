"""The folders that jobs leave: what is in them, who may write there, and how jobs stop and go on."""
