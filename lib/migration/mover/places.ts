// Paths inside the mover; each part has its own directory.

export const insideMover = {
  home: "/hal9000",
  volumes: "/volumes",
  /** Working directory of a move. */
  work: "/hal9000/migration",
  backup: (backup: string) => `/hal9000/backups/${backup}`,
} as const;
