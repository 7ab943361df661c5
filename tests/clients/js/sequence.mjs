// Checks numbered messages: none lost, duplicated or reordered.

export class Sequence {
  received = 0;
  first = null;
  last = null;
  broken = null;
  #waiting = [];

  take(number) {
    this.received += 1;
    this.first ??= number;
    if (this.last !== null && number !== this.last + 1) {
      this.broken ??= { expected: this.last + 1, received: number };
    }
    this.last = number;
    this.#waiting = this.#waiting.filter(({ count, resolve }) => !this.#settle(count, resolve));
  }

  // Replies when this many have arrived, or immediately if the sequence is broken.
  reached(count) {
    return new Promise((resolve) => {
      if (!this.#settle(count, resolve)) this.#waiting.push({ count, resolve });
    });
  }

  #settle(count, resolve) {
    const done = this.received >= count || this.broken !== null;
    if (done) {
      const { received, first, last, broken } = this;
      resolve({ received, first, last, broken });
    }
    return done;
  }
}
