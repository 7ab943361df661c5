// Types of hubs, made by trunkline::typescript. Do not edit.
import type { HubConnection, IStreamResult, Subject } from "@microsoft/signalr";

/**
 * A new note, as sent by its author.
 */
export type NewNote = { text: string, x: number, y: number, };

/**
 * A note on the board of a room.
 */
export type Note = { id: string, author: string, text: string, x: number, y: number, };

/**
 * A vote in a poll; `None` if the client did not answer in time.
 */
export type Vote = { name: string | null, is_for: boolean | null, };

/**
 * A connection in a room. A person with several tabs appears once per tab.
 */
export type Person = { connection: string, name: string | null, };

/** Methods of the hub, as functions of their arguments that return their results. */
export interface BoardMethods {
  "AddNote": (argument1: NewNote) => Note;
  "DeleteNote": (argument1: string) => boolean;
  "Import": (argument1: Subject<NewNote>) => number;
  "Poll": (argument1: string) => Array<Vote>;
  "People": () => Array<Person>;
  "Clear": () => void;
  "Ban": (argument1: string) => void;
}

/** Methods of the hub that stream, as functions of their arguments that return an item. */
export interface BoardStreams {
  "History": () => Note;
}

/** Methods that clients offer the hub. */
export interface BoardHandlers {
  "Entered": (name: string) => void;
  "Left": (name: string, cause: string) => void;
  "Noted": (note: Note) => void;
  "Removed": (id: string) => void;
  "Cleared": (by: string) => void;
  "Announced": (text: string) => void;
  "Confirm": (question: string) => boolean | Promise<boolean>;
  "Vote": (question: string) => boolean | Promise<boolean>;
}

/** A connection to the hub `Board`. */
export interface BoardConnection
  extends Omit<HubConnection, "invoke" | "send" | "stream" | "on" | "off"> {
  invoke<M extends keyof BoardMethods>(
    method: M, ...args: Parameters<BoardMethods[M]>
  ): Promise<ReturnType<BoardMethods[M]>>;
  send<M extends keyof BoardMethods>(method: M, ...args: Parameters<BoardMethods[M]>): Promise<void>;
  stream<M extends keyof BoardStreams>(
    method: M, ...args: Parameters<BoardStreams[M]>
  ): IStreamResult<ReturnType<BoardStreams[M]>>;
  on<M extends keyof BoardHandlers>(method: M, handler: BoardHandlers[M]): void;
  off<M extends keyof BoardHandlers>(method: M, handler?: BoardHandlers[M]): void;
}
