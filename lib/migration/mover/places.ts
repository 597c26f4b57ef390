// Where things are inside the mover; parts are in a directory each.

export const insideMover = {
  home: "/hal9000",
  volumes: "/volumes",
  /** What a move needs for itself. */
  work: "/hal9000/migration",
  backup: (backup: string) => `/hal9000/backups/${backup}`,
} as const;
