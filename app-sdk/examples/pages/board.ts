// Types of hubs, made by trunkline::typescript. Do not edit.
import type { HubConnection, IStreamResult, Subject } from "@microsoft/signalr";

/**
 * A note as somebody writes it.
 */
export type NewNote = { text: string, x: number, y: number, };

/**
 * A note on the board of a room.
 */
export type Note = { id: string, author: string, text: string, x: number, y: number, };

/**
 * An answer in a poll; `None` from who did not answer in time.
 */
export type Vote = { name: string | null, is_for: boolean | null, };

/**
 * Somebody in a room; who has several tabs open is there several times.
 */
export type Person = { connection: string, name: string | null, };

/** A connection to the hub `Board`. */
export interface BoardConnection extends Omit<HubConnection, "invoke" | "send" | "stream" | "on"> {
  invoke(method: "AddNote", argument1: NewNote): Promise<Note>;
  send(method: "AddNote", argument1: NewNote): Promise<void>;
  invoke(method: "DeleteNote", argument1: string): Promise<boolean>;
  send(method: "DeleteNote", argument1: string): Promise<void>;
  stream(method: "History"): IStreamResult<Note>;
  invoke(method: "Import", argument1: Subject<NewNote>): Promise<number>;
  send(method: "Import", argument1: Subject<NewNote>): Promise<void>;
  invoke(method: "Poll", argument1: string): Promise<Array<Vote>>;
  send(method: "Poll", argument1: string): Promise<void>;
  invoke(method: "People"): Promise<Array<Person>>;
  send(method: "People"): Promise<void>;
  invoke(method: "Clear"): Promise<void>;
  send(method: "Clear"): Promise<void>;
  invoke(method: "Ban", argument1: string): Promise<void>;
  send(method: "Ban", argument1: string): Promise<void>;
  on(method: "Entered", handler: (name: string) => void): void;
  on(method: "Left", handler: (name: string, cause: string) => void): void;
  on(method: "Noted", handler: (note: Note) => void): void;
  on(method: "Removed", handler: (id: string) => void): void;
  on(method: "Cleared", handler: (by: string) => void): void;
  on(method: "Announced", handler: (text: string) => void): void;
  on(method: "Confirm", handler: (question: string) => boolean | Promise<boolean>): void;
  on(method: "Vote", handler: (question: string) => boolean | Promise<boolean>): void;
}
