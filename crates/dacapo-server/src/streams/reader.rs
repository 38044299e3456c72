//! Reading a stream: what it has from others, then its own, and then what comes.

use bytes::Bytes;
use dacapo_log::{Log, Offset, ReadError, Record, Replay, Start, Tailer, Topic};

use super::content::Content;
use super::state::{Change, Part};
use crate::problem::Problem;

/// What a reader has to know of a stream when it begins.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) data: Topic,
    pub(crate) control: Topic,
    pub(crate) is_json: bool,
    pub(crate) inherited: Vec<Part>,
    /// Behind the record that created it.
    pub(crate) begin: Offset,
    /// Whether it is closed, and that is durable.
    pub(crate) is_closed: bool,
}

/// A piece of a stream.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) content: Content,
    /// Whether it was all that there is.
    pub(crate) is_up_to_date: bool,
    /// Whether nothing will ever follow it.
    pub(crate) is_last: bool,
    /// The stream was deleted meanwhile.
    pub(crate) is_gone: bool,
    pub(crate) next: Offset,
}

/// Reads from an offset on. Shows what is durable only.
pub(crate) struct Reader {
    log: Log,
    view: View,
    next: Offset,
    /// Those before are read.
    part: usize,
    replay: Option<Replay>,
    own: Option<Tailer>,
    follows: bool,
    is_closed: bool,
    is_gone: bool,
}

impl Reader {
    /// Of a stream that was looked at in `view`, from `next` on. One that follows learns of the close.
    pub(crate) fn new(log: Log, view: View, next: Offset, follows: bool) -> Self {
        let is_closed = view.is_closed;
        Self {
            log,
            view,
            next,
            part: 0,
            replay: None,
            own: None,
            follows,
            is_closed,
            is_gone: false,
        }
    }

    /// Whether the stream was closed when it began, or was seen to be since.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The offset of what it reads next.
    pub(crate) fn next_offset(&self) -> Offset {
        self.next
    }

    /// What there is now, up to a size; the last message may go beyond it. May wait for the disk.
    pub(crate) fn page(&mut self, bytes_max: usize) -> Result<Page, ReadError> {
        let mut content = Content::new(self.view.is_json);
        self.fill(&mut content, bytes_max)
            .map(|is_up_to_date| self.page_of(content, is_up_to_date))
    }

    /// Waits for what comes next, and gives it as [`page`](Self::page) does; also when the stream is
    /// closed or deleted. Everything that there was must have been read. Cancel-safe.
    pub(crate) async fn wait(&mut self, bytes_max: usize) -> Result<Page, ReadError> {
        let mut content = Content::new(self.view.is_json);
        while content.messages == 0 && !self.is_closed && !self.is_gone {
            let record = self.own().next().await?;
            self.take(&mut content, record);
        }
        let is_up_to_date = self.fill(&mut content, bytes_max)?;
        Ok(self.page_of(content, is_up_to_date))
    }

    fn page_of(&self, content: Content, is_up_to_date: bool) -> Page {
        Page {
            content,
            is_up_to_date,
            is_last: is_up_to_date && self.is_closed,
            is_gone: self.is_gone,
            next: self.next,
        }
    }

    /// True if nothing is left.
    fn fill(&mut self, content: &mut Content, bytes_max: usize) -> Result<bool, ReadError> {
        while content.bytes < bytes_max && !self.is_gone {
            if let Some(message) = self.next_inherited()? {
                content.push(message);
                continue;
            }
            match self.own().try_next()? {
                Some(record) => self.take(content, record),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    fn own(&mut self) -> &mut Tailer {
        let (log, view, follows) = (&self.log, &self.view, self.follows);
        let next = &mut self.next;
        self.own.get_or_insert_with(|| {
            *next = (*next).max(view.begin);
            let tailer = log.tail(Start::At(*next)).topic(&view.data).durable_only();
            match follows {
                true => tailer.topic(&view.control),
                false => tailer,
            }
        })
    }

    /// Takes a record of its own topics.
    fn take(&mut self, content: &mut Content, record: Record) {
        if record.is_deletion() {
            self.is_gone = true;
        } else if record.topic() == self.view.data.as_str() {
            self.next = record.offset().next();
            content.push(record);
        } else if let Ok(change) = Change::parse(record.payload()) {
            self.is_closed |= change.closes();
            self.is_gone |= change.ends();
        }
    }

    fn next_inherited(&mut self) -> Result<Option<Bytes>, ReadError> {
        while let Some(part) = self.view.inherited.get(self.part) {
            let (from, to) = (Offset::new(part.from), Offset::new(part.to));
            if self.next < to {
                let (log, start) = (&self.log, self.next.max(from));
                let replay = match &mut self.replay {
                    Some(replay) => replay,
                    None => {
                        let Ok(topic) = Topic::new(&part.topic) else {
                            self.part += 1;
                            continue;
                        };
                        self.replay
                            .insert(log.replay(Start::At(start)).topic(&topic))
                    }
                };
                let record = replay.next().transpose()?;
                if let Some(record) = record.filter(|record| record.offset() < to) {
                    self.next = record.offset().next();
                    let is_last = self.next == to;
                    let bytes = Bytes::from(record);
                    let cut = part.last_bytes.filter(|_| is_last);
                    let cut = cut.and_then(|cut| usize::try_from(cut).ok());
                    return Ok(Some(match cut {
                        Some(cut) => bytes.slice(..cut.min(bytes.len())),
                        None => bytes,
                    }));
                }
            }
            self.replay = None;
            self.part += 1;
        }
        Ok(None)
    }
}

/// A page, read where waiting for the disk keeps nobody else waiting.
pub(crate) async fn page_of(
    mut reader: Reader,
    bytes_max: usize,
) -> Result<(Reader, Page), Problem> {
    let read = tokio::task::spawn_blocking(move || {
        let page = reader.page(bytes_max);
        (reader, page)
    });
    match read.await {
        Ok((reader, page)) => Ok((reader, page?)),
        Err(error) => Err(Problem::internal(&error)),
    }
}
