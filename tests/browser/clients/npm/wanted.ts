// What a test wants the page to show, and what the page notes for it.

export interface Wanted {
  /** How many components read. */
  readers: number;
  channels: string[];
  /** Changes with the login. */
  login?: string;
  since?: Record<string, string>;
  /** Goes into the notes: a callback is always the newest one. */
  label?: string;
}

declare global {
  interface Window {
    /** Has done all of it once it returns, or its promise is fulfilled. */
    show: (wanted: Wanted) => void | Promise<void>;
    notes: string[];
    mounts: number;
  }
}

window.notes = [];
window.mounts = 0;

export const note = (text: string): void => {
  window.notes.push(text);
};
